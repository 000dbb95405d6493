"""CBNet on real engines, beside what it is compared with and what was published of it."""

"""A Linux board behind a shell: what runs there, what is sent, and how it is left clean."""

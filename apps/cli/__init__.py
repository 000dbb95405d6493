"""The command `phoneward`: one file a verb, put together in `app`. Only this room prints."""

"""What the commands of `daos` do, beside `serve`."""

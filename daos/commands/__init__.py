"""The commands of `daos` besides `serve`."""

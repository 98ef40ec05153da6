"""The composition root: it knows every part of the server and holds no rule of its own."""

__version__ = "0.1.0.dev0"

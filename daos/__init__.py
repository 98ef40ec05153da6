"""The composition root: it connects all parts of the server and contains no rules of its own."""

__version__ = "0.1.0.dev0"

"""The version of robnet-fx, for the root and for what writes files."""

__version__ = "0.2.0.dev0"

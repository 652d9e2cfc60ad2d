"""Kubernetes whose owner need not trust the data centre: see docs/architecture."""

__all__ = ["__version__"]

__version__ = "0.1.0"

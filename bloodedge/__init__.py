"""bloodedge: train, compress, verify and benchmark blood-cell classifiers for edge devices."""

from bloodedge._version import __version__

__all__ = ["__version__"]

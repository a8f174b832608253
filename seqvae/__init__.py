"""Sequence variational autoencoders for melodies: sample, reconstruct, interpolate and vary what you can play."""

__version__ = "0.1.0"

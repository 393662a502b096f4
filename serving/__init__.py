"""Runs a bundle on video streams: numpy and a runtime, no torch."""

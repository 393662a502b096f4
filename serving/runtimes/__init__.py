"""Runtimes: what runs a bundle's graphs on a device."""

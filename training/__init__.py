"""Learns a video segmenter on labelled source video and adapts it to an unlabelled target domain."""

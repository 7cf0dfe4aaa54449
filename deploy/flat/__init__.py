"""TFLite files as flatbuffers: read without trust, map byte by byte, and write lean."""

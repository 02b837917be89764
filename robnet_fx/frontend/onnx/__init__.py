"""ONNX files: read, run, and what their metadata say."""

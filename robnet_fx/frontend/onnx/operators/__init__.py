"""ONNX operators as torch modules: onnx2torch's converters, and what they need to serve a network with a free batch.

`node` is what is known of one node, `convert` asks onnx2torch's registry for its module, `restated` says a node the way
the converter there can read it, `missing` adds operators to the registry, `instead` holds the replacements.
"""

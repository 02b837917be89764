"""What is written for others: networks and bounds as ONNX."""

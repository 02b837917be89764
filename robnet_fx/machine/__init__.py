"""The machine and the process: devices, ranks, files, precision, progress and memory."""

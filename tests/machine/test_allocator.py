"""Memory that a process keeps is not zeroed by the system again."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from robnet_fx import pages
if "keep" in sys.argv:
    pages.keep(torch.device('cpu'))
def work():
    held = [torch.ones(2**23) for _ in range(8)]  # 32 MiB each: larger than anything the C library keeps by itself
for _ in range(3):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there is no mallopt")
def test_large_tensors_find_their_memory_again():
    def faults(*arguments):
        command = [sys.executable, "-c", PROGRAM, *arguments]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults("keep") < 100 < faults()

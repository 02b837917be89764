"""Ctrl-C in the middle of verdicts."""

from robnet_fx.verify import decision


def stop_after(patch, count):
    """`patch`, a monkeypatch, has Ctrl-C be pressed once so many samples have their answer."""
    answered, conclude = [], decision._Work.conclude

    def interrupted(self, sample, how):
        answered.append(conclude(self, sample, how))
        if len(answered) == count:
            raise KeyboardInterrupt
        return answered[-1]

    patch.setattr(decision._Work, "conclude", interrupted)

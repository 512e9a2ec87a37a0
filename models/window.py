"""The control window: which of the steps run with the control branch."""


def is_controlled(step: int, steps: int, control_start: float, control_end: float) -> bool:
    """Whether step `step` of `steps`, counted from 0, lies in the window, by the ControlNet convention.

    A step that lies in it only in part is not controlled: 0 to 0.4 of 8 steps are the steps 0, 1 and 2.
    """
    return step / steps >= control_start and (step + 1) / steps <= control_end


def has_controlled_step(steps: int, control_start: float, control_end: float) -> bool:
    return any(is_controlled(step, steps, control_start, control_end) for step in range(steps))

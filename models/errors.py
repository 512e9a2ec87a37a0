"""The errors of the model layer, each with the code that a caller reads in `error.type`.

ModelError                 code
├── WeightsMissing         weights_missing       a file of the model is not on this machine
├── HubError               hub_error             the hub refused, failed or has no such file
├── DiskFull               storage_failed        the disk has no room but what is kept free (models.disk)
├── SizeError              size_invalid          the input image's shape cannot be kept by `auto`
├── CheckpointError        checkpoint_invalid    a file is not what it should be
├── LoraError              lora_invalid          a LoRA cannot be found, read or applied
├── ControlNetError        controlnet_invalid    a control checkpoint cannot be read or is of no known layout
├── PreprocessError        preprocess_failed     canny, depth or pose could not be made
├── OutOfMemory            out_of_memory         the picture does not fit this device
├── DeviceBroken           device_broken         the device serves this process no more
├── BadOutput              bad_output            the model's output is not a picture (NaN, all black)
└── Cancelled              cancelled             raised by a caller's `on_step` to stop between two steps

The message of each is a sentence that says what is wrong, where, and what to do.
"""


class ModelError(Exception):
    """The base of this layer's errors. `str(error)` is the sentence shown to the caller."""

    code = "model_error"


class WeightsMissing(ModelError):
    code = "weights_missing"


class HubError(ModelError):
    code = "hub_error"


class DiskFull(ModelError):
    code = "storage_failed"


class SizeError(ModelError):
    code = "size_invalid"


class CheckpointError(ModelError):
    code = "checkpoint_invalid"


class LoraError(ModelError):
    code = "lora_invalid"


class ControlNetError(ModelError):
    code = "controlnet_invalid"


class PreprocessError(ModelError):
    code = "preprocess_failed"


class OutOfMemory(ModelError):
    code = "out_of_memory"


class DeviceBroken(ModelError):
    code = "device_broken"


class BadOutput(ModelError):
    code = "bad_output"


class Cancelled(ModelError):
    code = "cancelled"

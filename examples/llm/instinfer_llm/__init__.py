"""Attention of language models by the engine of instinfer: caches in (modelled or real) flash, every method by name.

    import instinfer_llm
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="instinfer")
    cache = instinfer_llm.Cache(model.config, method="sparf", budget=1 / 8)
    model.generate(**inputs, cache=cache)  # past_key_values=cache in older versions
    print(cache.usage())

`Model` is the same without transformers and without torch: arrays of numpy in, arrays out.
"""

from .bridge import (
    BadArgument,
    DriveFull,
    Error,
    IOFailure,
    Layer,
    Model,
    UnknownSequence,
    formats,
    methods,
    target,
)

__all__ = [
    "BadArgument", "Cache", "DriveFull", "Error", "IOFailure", "Layer", "Model", "UnknownSequence",
    "formats", "methods", "target",
]


def __getattr__(name):
    # torch and transformers are loaded when something asks for them.
    if name == "Cache":
        from .hugging_face import Cache
        return Cache
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _register_when_possible():
    try:
        from . import hugging_face  # noqa: F401  (registers attn_implementation="instinfer")
    except ImportError:
        pass  # without torch or transformers


import sys as _sys  # noqa: E402

if "transformers" in _sys.modules:
    _register_when_possible()

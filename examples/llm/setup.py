"""Builds the bridge with CMake, for this processor: pip install ./examples/llm

INSTINFER_LLM_FORMATS chooses what is built, as in INSTINFER_LLM_FORMATS="fp16:64;fp16:128".
"""

import os
import pathlib
import subprocess

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).resolve().parent


class BuildWithBridge(build_py):
    def run(self):
        super().run()
        folder = pathlib.Path(self.get_finalized_command("build").build_temp).resolve()
        subprocess.run(["cmake", "-S", str(HERE), "-B", str(folder), "-DCMAKE_BUILD_TYPE=Release"], check=True)
        subprocess.run(["cmake", "--build", str(folder), "--target", "instinfer_llm", "--parallel",
                        str(max(1, len(os.sched_getaffinity(0))))], check=True)
        self.copy_file(str(folder / "libinstinfer_llm.so"),
                       str(pathlib.Path(self.build_lib) / "instinfer_llm/libinstinfer_llm.so"))


class BinaryDistribution(Distribution):
    def has_ext_modules(self):
        return True  # the wheel is for this platform


setup(cmdclass={"build_py": BuildWithBridge}, distclass=BinaryDistribution)

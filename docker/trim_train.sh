#!/bin/sh
# In the training image's build: trim_train.sh VENV takes out what cannot run in the image, or that nothing there loads.
# A name that is gone in a newer version fails the build, so that a person looks again.
set -eu

cd "$1"/lib/python3*/site-packages

# torch.compile on a GPU: Triton compiles C at run time, and there is no compiler (690 MB). torch is imported without it.
rm -r triton
# To compile extensions against; no compiler either (70 MB).
rm -r torch/include nvidia/cu13/include
# No library of torch's or CUDA's links or names these: several GPUs in one solver, a second compiler (220 MB, below).
rm nvidia/cu13/lib/libcusolverMg.so.*
# What the wheels for ARM do not have: a second compiler, plugins for GPUs and NPUs.
rm -f nvidia/cu13/lib/libnvrtc.alt.so.* nvidia/cu13/lib/libnvrtc-builtins.alt.so.*
# The served graph runs, and is measured, on a CPU (60 MB).
rm -f openvino/libs/libopenvino_intel_gpu_plugin.so openvino/libs/libopenvino_intel_npu_plugin.so openvino/libs/cache.json

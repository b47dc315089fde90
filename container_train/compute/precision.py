"""Mixed precision: which arithmetic runs where."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Precision:
    """bfloat16 where the device computes it, else float16 with a loss scale; float32 when off."""

    device: str
    dtype: torch.dtype

    @classmethod
    def choose(cls, amp: str, device: torch.device) -> "Precision":
        """`amp` on, off or auto; auto is on for a GPU and for a CPU with AMX, which multiplies bfloat16 in hardware."""
        fast = device.type == "cuda" or torch.cpu.get_capabilities().get("amx_bf16", False)
        if amp == "off" or (amp == "auto" and not fast):
            return cls(device.type, torch.float32)
        bf16 = device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
        return cls(device.type, torch.bfloat16 if bf16 else torch.float16)

    def prepare(self) -> None:
        """float32 is to be float32: by default torch multiplies with TF32's 10 bits in the convolutions of a GPU.

        cuDNN tries its algorithms once for each shape, of which a training has few.
        """
        torch.backends.cudnn.benchmark = self.device == "cuda"
        if self.device == "cuda" and self.dtype == torch.float32:
            torch.backends.cudnn.allow_tf32 = False

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self.device, enabled=self.dtype == torch.float16)

"""The usual container made by hand: ONNX Runtime behind FastAPI (`uvicorn fastapi_app:app`, graph: ONNX_MODEL)."""

import io
import os

import numpy as np
import onnxruntime
from fastapi import FastAPI, Request
from PIL import Image

app = FastAPI()
session = onnxruntime.InferenceSession(os.environ["ONNX_MODEL"], providers=["CPUExecutionProvider"])
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


@app.get("/ping")
def ping() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/invocations")
async def invocations(request: Request) -> list[dict[str, float]]:
    image = Image.open(io.BytesIO(await request.body())).convert("RGB")
    scale = 232 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255
    batch = ((pixels - MEAN) / STD).transpose(2, 0, 1)[None]
    logits = session.run(None, {session.get_inputs()[0].name: batch})[0][0]
    powers = np.exp(logits - logits.max())
    best = np.argsort(-logits)[:5]
    return [{"index": int(i), "probability": float(powers[i] / powers.sum())} for i in best]

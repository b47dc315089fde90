"""The same behind LitServe, as its documentation shows an image model: JSON with the image in base64."""

import base64
import os
from typing import Any

import litserve

from tests.bench.peers.int8 import Classifier


class API(litserve.LitAPI):  # type: ignore[misc]
    """One worker's model."""

    def setup(self, device: str) -> None:
        self.classify = Classifier()

    def decode_request(self, request: dict[str, str]) -> bytes:
        return base64.b64decode(request["image"])

    def predict(self, image: bytes) -> list[dict[str, float]]:
        return self.classify(image)

    def encode_response(self, output: list[dict[str, float]]) -> dict[str, Any]:
        return {"output": output}


if __name__ == "__main__":
    server = litserve.LitServer(API(api_path="/invocations"), accelerator="cpu", workers_per_device=2)
    server.run(port=int(os.environ["PORT"]), generate_client_file=False, log_level="error")

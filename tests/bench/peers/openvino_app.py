"""A server as an expert writes it by hand: OpenVINO int8 behind FastAPI, `uvicorn openvino_app:app --workers 2`."""

from fastapi import FastAPI, Request

from tests.bench.peers.int8 import Classifier

app = FastAPI()
classify = Classifier()


@app.get("/ping")
def ping() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/invocations")
async def invocations(request: Request) -> list[dict[str, float]]:
    # Each process has one graph and nothing else to do meanwhile: a thread pool would only add to the time.
    return classify(await request.body())

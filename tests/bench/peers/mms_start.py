"""The start of a container with multi-model-server and sagemaker-inference: their own, except for its file in /etc."""

import sys
from pathlib import Path

from sagemaker_inference import model_server

if __name__ == "__main__":
    model_server.MMS_CONFIG_FILE = str(Path.cwd() / "mms.properties")
    sys.exit(model_server.start_model_server())

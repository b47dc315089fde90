"""The process beside the training: judges what it left so far, again and again, until the training has ended.

    python -m container_train.debugger.watch --out OUT --tensors DIR [--rule TEXT] [--on-rule warn|stop] [--seconds 2]

stdin   `end STATUS` ends it after a last look at everything; so does the end of the pipe, when the training is gone.
stdout  `stop RULE: reason` once, with --on-rule stop: a rule fired that is to end the training. Nothing else.
        It is a pipe that a thread of the training process reads; nobody polls files.
        Rules named in --rule stop the training; where none is named, all of the debugger's do.
stderr  one line for whatever could not be done.
"""

"""The training program: folders of pictures in, a verified model artifact out.

images -> data -> model (frozen prefix | trainable rest) -> features -> engine -> export -> report
"""

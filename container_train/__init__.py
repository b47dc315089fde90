"""The training program: folders of images in, a verified model artifact out.

images -> data -> model (frozen backbone | trained head) -> features -> engine -> export -> report
"""

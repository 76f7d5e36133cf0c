"""How is a batch of training images varied, beyond the crops and views of augment.py?

recipe      Recipe: resized crops, RandAugment, colour jitter and erasing, each with its strength
rectangles  rectangles drawn for a whole batch, and what is done with them: resize, erase
mix         mixup and cutmix: two images become one, their labels shares of both

May import what data may.

- Random numbers come from torch's global CPU generator, so a checkpoint inside an epoch goes on
  bitwise, and a GPU gets the same draws. Nothing waits for the device.
- A strength of zero is as if the part were not there, bit for bit: no number is drawn for it.
- What is resized, erased or mixed is what torchvision's own operation gives for the same draw. A
  GPU resizes by one matrix product, which may differ from it by one of 255 levels.
- Crops are of the images as they are kept, squares of data.resize pixels.
"""

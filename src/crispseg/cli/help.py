"""The first page of help of commands that have many keys; it is there at once, since nothing else is imported."""

FIRST = {
    "train": """\
usage: crispseg train [FOLDER | CONFIG.yaml] [--key value ...]

Train a model on your own images and masks, or on data that crispseg knows:

  crispseg train --data folder --data.images photos --data.masks masks --out runs/mine

The keys that matter first; in a YAML file they are 'key: value':

  --data.images FOLDER     images to train and to validate on
  --data.masks FOLDER      masks with the names of the images; their values are class ids
  --data.classes NAMES     names of the classes in the order of their ids: '[background, road]'
  --out FOLDER             folder of the run (default: runs/train)
  --minutes M              length of the training, evaluations included; 30 where no length is given
  --epochs N               its length in passes over the training images instead
  --batch_size N           images a step; fewer take less memory (default: auto)
  --augment.crop SIDE      pixels of the part that is cut out: 256, or [256, 512] (default: auto)
  --model NAME             the network: crisp, sfnet, upernet, agln, unept, ... (default: crisp)
  --model.backbone NAME    resnet50, convnext_tiny or any timm name with a pyramid
                           (default: tf_efficientnet_lite0)
  --model.pretrained X     true for ImageNet weights, a weight file, or false (default: true)
  --init_from RUN          start from the model of another run, with its weights
  --resume RUN             go on with a run that was stopped
  --folds N                train N models, each with another part of the images as val

crispseg train --help all explains every key. Which there are follows from model and data:
crispseg train --model agln --data camvid --help""",
    "predict": """\
usage: crispseg predict RUN IMAGE_OR_FOLDER ... [--key value ...]

Segment images: NAME.png holds the class ids (with colours), NAME_overlay.png shows them.

  crispseg predict runs/mine photos
  crispseg predict nuclei photos       (crispseg list --pretrained shows such names)

The keys that matter first:

  --out FOLDER             folder to write to (default: a new one beside the images)
  --device NAME            cpu or cuda (default: CUDA where there is one)
  --tiles SIDE             larger images, also TIFFs larger than memory, in tiles of this side
  --protocol NAME          several scales or sliding windows: better and slower (default: whole)
  --resume                 keep a manifest in --out: the same command goes on after it was ended
  --shard I/N              one of N shares of the images, for N processes with one --out

crispseg predict --help all explains every key.""",
    "evaluate": """\
usage: crispseg evaluate RUN [--key value ...]

Score a trained model on the data it was trained on, or on others given by --data:

  crispseg evaluate runs/mine --html scores.html

The keys that matter first:

  --split NAME             which part of the data (default: val)
  --data NAME              other data, such as folder with --data.images and --data.masks
  --boundary               also score boundaries
  --html FILE.html         also write a page with the best and the worst images
  --json FILE              also write the scores to this file
  --device NAME            cpu or cuda (default: CUDA where there is one)

crispseg evaluate --help all explains every key.""",
    "inspect": """\
usage: crispseg inspect RUN IMAGE --out PAGE.html [--key value ...]

Write a page that shows how a model comes to its labels, for every pixel of an image:

  crispseg inspect runs/mine photo.jpg --out page.html

The keys that matter first:

  --out PAGE.html          the page to write
  --truth MASK             the image's mask of class ids, to see errors
  --figures DIR            also write the papers' figures there, as PNG

crispseg inspect --help all explains every key.""",
}
"""Command → its page."""

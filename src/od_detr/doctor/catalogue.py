"""Every kind of problem that the doctor knows: what it is, what it costs, and how to fix it."""

from __future__ import annotations

from od_detr.data.findings import ADD_IMAGE
from od_detr.doctor.kind import LEAVES_BOX, LEAVES_IMAGE, Kind, costs, notes, stops

READING: dict[str, Kind] = {
    "annotations-unreadable": stops(
        "splits", "the annotations cannot be read", "export them again"
    ),
    "image-file": stops("images", "the image file is missing", ADD_IMAGE, LEAVES_IMAGE),
    "image-size": stops(
        "images",
        "the entry of an image has no positive size",
        "write the size in pixels",
        "writes the size of the file",
    ),
    "image-id": stops(
        "images",
        "an image id is there twice",
        "give each image its own id",
        "leaves out the images and boxes of that id",
    ),
    "image-listed-twice": costs(
        0.5, "images", "a file is listed more than once", "list each file once", LEAVES_IMAGE
    ),
    "image-link": notes(
        "images",
        "a link leads out of the data set's folder",
        "copy the images into the data set's folder",
    ),
    "annotation-image_id": stops(
        "boxes", "a box belongs to no image", "add the image or remove the box", LEAVES_BOX
    ),
    "annotation-category_id": stops(
        "boxes", "a box belongs to no category", "add the category or correct the id", LEAVES_BOX
    ),
    "annotation-bbox": stops(
        "boxes",
        "a box is not x, y, width, height",
        "write four finite numbers in pixels",
        LEAVES_BOX,
    ),
    "annotation-iscrowd": stops("boxes", "iscrowd is neither 0 nor 1", "write 0 or 1", LEAVES_BOX),
    "annotation-area": costs(
        0.1,
        "boxes",
        "an area is not a number of at least 0",
        "write the area of the object",
        "writes the area of the box",
    ),
    "category-id": stops(
        "classes", "a category id is there twice", "give each category its own id"
    ),
    "category-name": stops(
        "classes",
        "two categories have one name",
        "give each category its own name",
        "merges the categories",
    ),
    "category-unknown": stops(
        "classes",
        "a class has boxes here but is not a class of the training set",
        "add it to the training set or correct its name",
        "leaves its boxes out",
    ),
    "root-category": notes(
        "classes",
        "a category without boxes is the parent of others",
        "nothing to do: it is not a class",
        "leaves the category out",
    ),
    "repeated-key": stops(
        "boxes", "a key of a JSON object is there twice", "keep one of them", "keeps the last"
    ),
    "record": stops("boxes", "a record is not a JSON object", "correct the list", LEAVES_BOX),
    "section": stops(
        "splits",
        "a list of the COCO file is missing or empty",
        "list images, annotations and categories",
    ),
    "box-normalised": stops(
        "boxes",
        "the boxes are normalised, not in pixels",
        "multiply by the width and height of the image",
        "writes pixels",
    ),
    "box-corners": stops(
        "boxes",
        "the boxes are two corners, not x, y, width, height",
        "write [x, y, width, height]",
        "writes the width and height",
    ),
    "box-centres": stops(
        "boxes",
        "the boxes are centres and sizes, not x, y, width, height",
        "write the top left corner",
        "writes the top left corner",
    ),
    "label-row": stops(
        "boxes",
        "a line of a label file does not describe an object",
        "write: class x_center y_center width height",
        LEAVES_BOX,
    ),
    "label-not-normalised": stops(
        "boxes",
        "a line of a label file is not between 0 and 1",
        "divide by the width and height of the image",
        LEAVES_BOX,
    ),
    "label-class": stops(
        "boxes",
        "a label file has a class without a name",
        "add the name or correct the class",
        LEAVES_BOX,
    ),
    "label-without-image": costs(
        0.5, "images", "a label file belongs to no image", "add the images"
    ),
    "no-label-file": notes(
        "images",
        "an image has no label file and counts as one without objects",
        "check that these images are empty",
    ),
    "voc-object": stops(
        "boxes", "an object has no name or no box", "write a name and four numbers", LEAVES_BOX
    ),
    "voc-origin": costs(0.05, "boxes", "pixels seem to be counted from 0", "give --voc-origin 0"),
    "voc-filename": costs(
        0.1,
        "images",
        "an XML file names another image than the one of its own name, which is taken",
        "correct filename, or rename the file",
    ),
    "voc-lists": costs(0.5, "splits", "a year without lists is left out", "add the lists"),
    "voc-years": costs(0.5, "images", "a name is in two years", "keep one, if it is one picture"),
    "xml": stops(
        "images", "an XML file cannot be read", "export the annotations again", LEAVES_IMAGE
    ),
    "no-objects": stops("splits", "there are no objects", "label the images"),
    "no-images": stops("splits", "there are no images", "add images"),
}

IMAGES: dict[str, Kind] = {
    "image-missing": stops("images", "an image file has gone", "put the image back", LEAVES_IMAGE),
    "image-format": stops(
        "images", "a file is not an image of a supported format", "replace the file", LEAVES_IMAGE
    ),
    "image-pixels": stops(
        "images",
        "the range of an image's pixels is not known",
        "save the image with 8 bits a channel",
        LEAVES_IMAGE,
    ),
    "image-too-large": stops(
        "images", "an image has too many pixels", "make the image smaller", LEAVES_IMAGE
    ),
    "image-unreadable": stops(
        "images", "a file cannot be read as an image", "replace or remove the file", LEAVES_IMAGE
    ),
    "image-undecodable": stops(
        "images",
        "the pixels of an image cannot be decoded",
        "replace or remove the file",
        LEAVES_IMAGE,
    ),
    "image-exif-size": stops(
        "images",
        "boxes are for the image before its EXIF rotation",
        "turn the boxes as a viewer turns the image",
        "turns the boxes",
    ),
    "image-wrong-size": stops(
        "images",
        "the size of the file is not the one of its entry",
        "correct the entry and its boxes",
        "scales the boxes where the aspect is the same; otherwise leaves the image out",
    ),
    "image-blank": costs(
        1.0, "images", "an image shows a single colour", "replace or remove the image", LEAVES_IMAGE
    ),
    "image-dark": costs(
        0.7, "images", "an image is nearly black", "check the camera, or remove the image"
    ),
    "image-bright": costs(
        0.7, "images", "an image is nearly white", "check the camera, or remove the image"
    ),
    "image-small": costs(
        0.5, "images", "an image has a side below 32 pixels", "use the original image"
    ),
    "image-long": costs(
        0.3,
        "images",
        "one side of an image is more than 5 times the other",
        "cut it into pieces: it is scaled down to fit",
    ),
    "image-frames": notes(
        "images", "an image has several frames", "nothing to do: the first one is used"
    ),
    "image-alpha": notes("images", "an image has transparency", "nothing to do: it is dropped"),
    "image-colours": notes(
        "images",
        "an image is not stored as 8-bit RGB or grey",
        "check how it looks after conversion",
    ),
    "image-suffix": notes(
        "images",
        "the file is in another format than its name says",
        "rename it: other programs may refuse it",
    ),
    "image-exif": notes(
        "images",
        "an image is turned by its EXIF data",
        "nothing to do here; other programs may not turn it",
    ),
    "image-unlisted": notes("images", "an image file is in no split", "list it, or remove it"),
}

DUPLICATES: dict[str, Kind] = {
    "image-leaked": costs(
        1.0,
        "images",
        "an image is in two splits",
        "keep it in one: AP is measured too high",
        LEAVES_IMAGE,
    ),
    "image-nearly-leaked": costs(
        0.7,
        "images",
        "an image is nearly one of another split",
        "keep both in one split, for instance with --group",
    ),
    "image-repeated": costs(
        0.5, "images", "an image is in the split twice", "keep one", LEAVES_IMAGE
    ),
    "image-labelled-twice": costs(
        1.0,
        "images",
        "an image is in the split twice, with different boxes",
        "join the boxes of both and keep one image",
    ),
    "image-nearly-repeated": costs(
        0.2,
        "images",
        "an image is nearly another one of the split",
        "keep one, unless both are wanted",
    ),
}

BOXES: dict[str, Kind] = {
    "box-empty": costs(
        1.0, "boxes", "a box has no width or no height", "draw it again or remove it", LEAVES_BOX
    ),
    "box-off-image": costs(
        1.0, "boxes", "a box lies outside of its image", "correct or remove it", LEAVES_BOX
    ),
    "box-overhang": costs(
        0.3,
        "boxes",
        "a box reaches outside of its image",
        "correct it: it will be clipped",
        "clips the box",
    ),
    "box-below-pixel": costs(
        1.0, "boxes", "a box is smaller than a pixel", "is it normalised? Write pixels", LEAVES_BOX
    ),
    "box-thin": costs(0.5, "boxes", "a box is more than 30 times as long as wide", "check the box"),
    "box-whole-image": costs(
        0.3,
        "boxes",
        "a box covers its whole image",
        "check whether it stands for the image and not for an object",
    ),
    "box-repeated": costs(
        1.0, "boxes", "a box is there twice with the same class", "keep one", LEAVES_BOX
    ),
    "box-nearly-repeated": costs(
        0.5,
        "boxes",
        "two boxes of one class are nearly the same",
        "keep one, unless there are two objects",
    ),
    "box-two-classes": costs(
        0.5, "boxes", "two boxes of different classes are nearly the same", "keep the right one"
    ),
    "box-same-everywhere": costs(
        0.7,
        "boxes",
        "the same box is in ten images or more",
        "check whether a tool put it there by default",
    ),
    "box-area": costs(
        0.1,
        "boxes",
        "an area is larger than its box",
        "write the area of the object",
        "writes the area of the box",
    ),
    "box-far": costs(
        1.0,
        "boxes",
        "a box lies more than a million pixels away",
        "correct or remove it",
        LEAVES_BOX,
    ),
}

CLASSES: dict[str, Kind] = {
    "class-names-alike": costs(
        1.0,
        "classes",
        "names of classes differ by case or blanks only",
        "use one name",
        "merges the classes",
    ),
    "class-name": notes(
        "classes", "the name of a class is a number or has blanks around it", "write its name"
    ),
    "class-unused": costs(
        0.2, "classes", "a class has no boxes in any split", "label it, or remove the class"
    ),
    "class-untrained": costs(
        1.0,
        "classes",
        "a class has boxes to be evaluated but none to train on",
        "move some of its images to the training split",
    ),
    "class-unmeasured": costs(
        0.2,
        "classes",
        "a class has no boxes to be evaluated",
        "move some of its images to the validation split",
    ),
    "class-rare": costs(
        0.6, "classes", "a class has fewer than 10 boxes to train on", "label more of them"
    ),
    "class-imbalance": costs(
        0.3, "classes", "a class has 100 times the boxes of another", "label more of the rare one"
    ),
}

SPLITS: dict[str, Kind] = {
    "split-untrained": notes(
        "splits",
        "there is no training split",
        "nothing to do for evaluate and --val-data; to train, add a folder or file for train",
    ),
    "split-absent": notes(
        "splits",
        "there is no validation split",
        "nothing to do: a part of the images is taken; see --val-fraction",
    ),
    "split-small": costs(
        0.1,
        "splits",
        "there are fewer than 20 images to validate on",
        "use more: AP varies by several points",
    ),
    "split-empty": costs(1.0, "splits", "a split has no objects", "label the images"),
    "split-background": costs(
        0.1,
        "images",
        "more than half of the images have no objects",
        "check that they are labelled; they teach little",
    ),
    "split-crowds": notes(
        "boxes", "boxes mark crowds or difficult objects", "nothing to do: they are not trained on"
    ),
}

FIT: dict[str, Kind] = {
    "fit-queries": stops(
        "images", "an image has more objects than the model has queries", "give --queries"
    ),
    "fit-queries-few": costs(
        0.2,
        "images",
        "an image has objects for more than a third of the queries",
        "give more --queries",
    ),
    "fit-small": costs(
        0.7,
        "boxes",
        "objects are smaller than 8 pixels at the training size",
        "give a larger --image-size, or cut the images into tiles",
    ),
}

KINDS = READING | IMAGES | DUPLICATES | BOXES | CLASSES | SPLITS | FIT

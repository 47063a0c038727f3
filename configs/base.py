"""Every configuration field with its default: the paper's choice where it states one, else the released code's.

The other files in this folder start from `get_config()` and override fields. On the command line a field is
set as `--config.train.epochs=60`; a misspelt field is an error that names the near matches.
"""

from __future__ import annotations

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the complete configuration with default values."""
    c = ml_collections.ConfigDict()
    c.seed = 0  # the one seed; every random use folds in (phase, epoch, step, purpose)

    c.data = d = ml_collections.ConfigDict()
    # synthetic_{tiny,small,full}, celeb, celeb_light, prcc, ltcc, vc_clothes, last, deepchange, ccvid,
    # mevid, folder, or "module:name" of a dataset in a module of your own (docs/forking.md).
    d.name = "synthetic_small"
    # Where TFDS datasets are kept; "" = <workdir>/data for the synthetic ones, ~/tensorflow_datasets otherwise.
    d.data_dir = ""
    # What to build from when the dataset is not there yet: the folder as its authors distribute it, or prepared folders
    # (imgs/ lr_face/ hr_face/ mask/); for "folder" the CSV or its folder.
    d.raw_dir = ""
    d.parts_dir = ""  # masks and faces to join: what the data preparation wrote, or lr_face/ hr_face/ mask/
    # What the masks are: white-off-clothes, white-on-clothes, or the label scheme of label maps (lip, atr, pascal,
    # cloth_mask); "auto" decides from the files (docs/inputs.md).
    d.mask_kind = "auto"
    d.allow_different_size = False  # True builds splits that differ in size from the published ones
    d.build_seed = 0  # synthetic only: the seed of the generated people
    d.clothing = ()  # part labels that count as clothing; () = the label scheme's own set
    d.body_size = (384, 128)  # height, width in pixels
    d.face_size = (224, 224)  # height, width in pixels; of both kinds of face
    d.identities = 5  # P identities per batch ...
    d.images_per_identity = 6  # ... times K images each (global batch, over all hosts)
    # What a batch holds: "identities", P identities times K images; "images", the next P * K images of the shuffled
    # split, each once per epoch, an incomplete last batch left out.
    d.sampler = "identities"
    # Videos: frames that an epoch uses of each tracklet of the training split, drawn anew for every epoch; 0 = all.
    # Photos of no tracklet are all used.
    d.frames_per_tracklet = 0
    d.tracklet_length = 0  # longer tracklets are cut every so many frames for that, each piece a tracklet; 0 = whole
    d.interpolation = "bilinear"  # how photos are resized, here and when embedding: Pillow's "bilinear" or "bicubic"
    d.require_face = False  # True drops training images without a face (released code)
    d.require_mask = False  # True drops training images without a mask (released code)
    d.validation_identities = 0  # identities held out of train, for eval.report = "validation"
    d.workers = 0  # decoding processes per host; 0 decodes in threads of the training process
    d.skip_corrupt = False  # True skips unreadable records, counted; False stops at the first

    c.augment = a = ml_collections.ConfigDict()
    a.flip = 0.5  # probability of mirroring; body, both faces and mask together
    a.crop = 0.5  # probability of enlarging by crop_scale and cropping back; together as well
    a.crop_scale = 1.05  # the enlargement, of height and width each
    a.pad = 0  # pixels of black around the resized image, of which a random window of its size is cut; together as well
    # Colour jitter, in random order; one draw for all photos of a row, never on the mask.
    a.brightness = 0.0  # brightness times 1 - this to 1 + this
    a.contrast = 0.0  # likewise
    a.saturation = 0.0  # likewise
    a.hue = 0.0  # turned by -this to this of the circle, at most 0.5
    # sps: where a pixel of a garment gets its colour from. "regions": the same garment of one other person; "released":
    # all values of a garment in the batch are permuted, colours and people mix, and `pad` shifts photos but not maps.
    a.pixel_sampling = "regions"
    a.erase = 0.5  # probability of random erasing, on each image by itself, never on the mask
    a.erase_area = (0.02, 0.4)  # erased fraction of the image
    a.erase_ratio = 0.3  # aspect ratio between this and 1 / this
    a.erase_fill = (0.4914, 0.4822, 0.4465)  # RGB in [0, 1]
    a.erase_normalised = False  # True fills images that are normalised already with these numbers (released code)
    # 0 draws flip, crop and erasing for each image by itself. n > 0: an epoch has n draws, and all images of its batch
    # i take draw i modulo n (released code: 4, one for each of its loading processes).
    a.shared_draws = 0

    c.model = m = ml_collections.ConfigDict()
    # The method: deskpro, a method that the paper compares with (docs/published_methods.md), or the name of a user
    # module (docs/forking.md).
    m.name = "deskpro"
    # The method's network: of deskpro and osnet OSNet x1_0, x0_75, x0_5 or x0_25, with ibn_ or ain_ in front for its
    # forms with instance normalisation, or "module:name" of a fork (docs/forking.md); of osnet_ibn and osnet_ain only
    # the width. Other methods name theirs in docs/published_methods.md.
    m.backbone = "x1_0"
    m.streams = "abcd"  # OSBlock streams; "aacd" is what the released code runs
    m.body = True  # the global (body) stream
    # Another method in place of deskpro's own body network: a variant of docs/published_methods.md, as "pcb", with its
    # published fields of `model` and `loss`, and "model.attention" before its last stage where it has a place for it.
    m.body_method = ""
    m.body_options = ()  # change these fields: ("model.parts=4", "loss.margin=0.3")
    m.face = "student"  # face stream at test: "student", "teacher" (restored faces, DeSKPro*) or "none"
    # Regions of hacnn: whether -1 and 1 are the centres of a map's outermost pixels (PyTorch before 1.3, by which the
    # published weights were trained), or their outer edges (the same code today).
    m.align_corners = False
    m.attention = "paper"  # CSA: "paper" (Eq. 1), "released" (two convolutions) or "none"
    m.feature_dim = 512  # size of each of the seven part embeddings
    m.drop_ratio = 0.33  # fraction of rows that the top-drop block zeroes in training
    m.stem_relu = True  # bot: whether the stem has a ReLU; the authors' code and weights have none
    m.parts = 6  # pcb, cssc: stripes; cssc 8, fire 2
    m.dropout = 0.5  # pcb, reidcaps: fraction of the features that is dropped in front of (the first) classifiers
    m.pool = "avg"  # mgn: how maps are pooled, "avg" or "max"
    m.routing = 4  # reidcaps: rounds of routing between capsules
    # reidcaps: what the softmax of a round runs over: "nodes" of each identity (its code), or "identities" of each node
    # (Sabour et al.).
    m.routing_over = "nodes"
    m.image_parts = False  # reidcaps: six networks, on thirds, halves and the whole of the photo (ReIDCaps+)
    m.part_size = (224, 224)  # height, width in pixels that these parts are resized to
    m.pyramid = False  # sps: a horizontal pyramid of fifteen features (HPM) in place of one
    m.dtype = "float32"  # compute type: "float32" or "bfloat16"; parameters and losses stay float32

    # Pretrained initialisation instead of random values: a PyTorch or safetensors file of OSNet, LightMBN or
    # DeSKPro, or a workdir (trained, or converted from such a file). They are read when a phase starts, not when it
    # continues. An OSNet fills the trunk and all three branches; what a file lacks stays random, and is logged.
    c.init = i = ml_collections.ConfigDict()
    i.body = ""  # the body stream ("" = random values)
    i.face = ""  # the face student
    i.teacher = ""  # the teacher that is trained here; one trained elsewhere goes into teacher.checkpoint
    i.dont_load = ()  # regular expressions for whole names in these files that keep their random values

    c.loss = l = ml_collections.ConfigDict()
    l.attention_weight = 7.0  # lambda of Eq. 7; 0 turns L_att off
    l.mask_epsilon = 0.1  # epsilon of Eq. 3
    l.mask_rule = "paper"  # "paper": epsilon, then resize; "released": resize, then replace exact zeros
    l.alpha = 0.7  # Eq. 7: weight of L_fkp against the student's cross-entropy; 0 trains without a teacher
    l.temperature = 5.0  # tau of Eq. 5
    l.ce_weight = 1.0  # of the cross-entropy of a stream
    l.metric = "triplet"  # the metric loss: batch-hard "triplet", or "multi_similarity" as LightMBN has it
    l.triplet_distance = "euclidean"  # that the triplet loss compares by: "euclidean", or "cosine" for 1 - cosine
    l.margin = 0.7  # of the metric loss
    # Of the metric loss, L_trip in Eq. 7; less of it helps a network that starts from random weights.
    l.triplet_weight = 1.0
    l.triplet_start = 0  # epochs at the beginning without it (fire: without everything that its clustering is for)
    l.soft_margin = False  # log(1 + exp(.)) instead of the triplet loss's hinge
    l.outputs = "sum"  # cross-entropy and metric loss over a stream's outputs: their "sum" or "mean"
    l.centre_weight = 0.0  # of the centre loss; 0 leaves it out
    l.centre_rate = 0.5  # learning rate of its centres, by plain SGD whatever the weight and the schedule
    l.capsule_margins = (0.9987, 0.0013)  # reidcaps: m+ and m- of the capsules' margin loss
    l.capsule_absent = 0.5  # weight of the other identities in it
    # cal, aim: epoch (from 0) from which the clothes classifier trains, and losses that need it count.
    l.clothes_epoch = 25
    l.clothes_scale = 16.0  # cosines of clothes classifiers are multiplied by this: 1 / tau
    l.clothes_epsilon = 0.1  # part of the adversarial loss's target that all outfits of a person share
    l.clothes_rate = 0.00035  # learning rate of the clothes classifier, whatever the schedule
    l.clothes_divergence = 1.0  # aim: weight of the divergence between its two classifiers of clothes
    l.counterfactual_weight = 1.0  # aim: of the cross-entropy of logits without those of the fused feature
    l.consistency_weight = 1.0  # sps: of the difference between features of a photo and of its copy in other clothes
    l.label_smoothing = 0.0  # 0.1 in the released code
    # fire, between epochs from `triplet_start` on:
    l.cluster_k1 = 20  # neighbours that must be mutual, each image among its own
    l.cluster_k2 = 6  # neighbours that are averaged over
    l.cluster_eps = 0.4  # largest Jaccard distance within a cluster
    l.fine_weight = 1.0  # of the cross-entropy over clusters
    l.fine_scale = 16.0  # of its cosines
    l.fine_smoothing = 0.1  # part of its target that is spread over the clusters of the identity
    l.recomposition_weight = 0.3  # of the cross-entropy of maps with the appearance of other images
    l.extra = ()  # functions "module:name" of a fork that return further terms of the loss (docs/forking.md)

    c.teacher = t = ml_collections.ConfigDict()
    # A trained teacher: a workdir or its teacher/ folder, or a released weights file (.pth, .safetensors) of as many
    # identities as the training split has; "" trains one first when it is needed.
    t.checkpoint = ""
    t.method = ""  # another method as the face teacher, see model.body_method
    t.options = ()  # of that method, see model.body_options
    t.train = True  # False never trains one (released code): teacher.checkpoint has to name it
    t.statistics = "running"  # of the frozen teacher: "running", or "batch" (released code, top-drop on as well)
    t.epochs = 140  # of the teacher phase

    c.train = r = ml_collections.ConfigDict()
    r.epochs = 140  # of the student phase; 0 trains nothing, and scores what `init` names
    # Epochs until the cosine's end; 0 = train.epochs. Epochs after it continue with the rate that the released code has
    # there: one more value of the cosine, falling to the final rate in 500 epochs.
    r.schedule_epochs = 0
    r.optimizer = "adam"  # "adam" (0.9, 0.999), "amsgrad" or "sgd", each with PyTorch's numerics
    r.momentum = 0.9  # of sgd
    r.base_lr = 0.0006  # times sqrt(batch / reference_batch)
    r.reference_batch = 20  # images that the base rate is given for; 0 takes it as it is, whatever the batch
    r.warmup_epochs = 10  # with a rate that rises evenly to the base rate; both phases
    # Epoch e (from 0) of the warm-up has (e + 1) / warmup_epochs of the rate; with a factor f > 0 it has
    # f + (1 - f) e / warmup_epochs of it.
    r.warmup_factor = 0.0
    # The rate after the warm-up: "cosine", down to final_fraction of it in the last epoch; "cosine_to_zero", of which
    # epoch e has (1 + cos(pi e / epochs)) / 2; "step", times `decay` from each epoch of `milestones` on.
    r.schedule = "cosine"
    r.final_fraction = 0.001  # the cosine ends at this fraction of the base rate
    r.milestones = ()  # epochs, from 0
    r.decay = 0.1  # at each milestone
    r.weight_decay = 0.0005  # L2 added to the gradient (not decoupled)
    r.pretrained_rate = 1.0  # factor of the learning rate of a method's backbone, which published weights start
    # Epochs at the beginning in which only classifiers train: everything else runs as in evaluation and stays as it
    # is, while the schedule runs on.
    r.freeze_epochs = 0
    r.log_every = 20  # steps between metric lines
    # First and last step of a phase to profile, as (100, 103), into its folder profile/; () = none. Open it in
    # TensorBoard (or the file perfetto_trace.json.gz at ui.perfetto.dev).
    r.profile_steps = ()
    # What the backward pass computes again instead of keeping it in memory: "none"; "light", all of an OSBlock but its
    # matrix products; "blocks", whole OSBlocks (docs/scaling.md). Results are the same but for rounding.
    r.remat = "none"
    # How depthwise 3x3 convolutions are computed; results are the same but for rounding. "auto": nine shifted
    # multiply-adds, which read a padded copy on CPUs ("padded") and pad as they read elsewhere ("shifted");
    # "grouped": XLA's own grouped convolution, to compare with on an accelerator (docs/scaling.md).
    r.depthwise = "auto"

    c.eval = e = ml_collections.ConfigDict()
    e.every = 20  # epochs between evaluations; 0 = at the end only
    e.batch = 64  # images embedded at a time, over all devices
    e.flip = True  # add the features of the mirrored image
    # Similarity to an image without a face: "body" compares the body streams only (paper), "zeros" takes zeros for the
    # face's features (released code), so that such a pair reaches half the similarity at most.
    e.missing_face = "body"
    # Identity numbers of query and gallery images that name no person; for Market-1501 (-1,) and (0,).
    e.junk_identities = ()  # these images are ignored: neither right nor wrong matches, nor queries
    e.distractor_identities = ()  # wrong matches for every query; negative identities that are not junk are too
    # How two images are compared: "cosine", or "euclidean", the squared distance of features that are not scaled to
    # unit length (torchreid's default). Only here: embed and search always scale each part to unit length.
    e.distance = "cosine"
    # "step": mean of the precisions at the correct images; "trapezoid": area under the precision-recall curve by the
    # trapezoid rule, which is lower (ReIDCaps). Not comparable: every result says which it has (docs/evaluation.md).
    e.average_precision = "step"
    e.protocols = ()  # names of the protocols to report, docs/evaluation.md; () = every one of the dataset
    e.rerank = False  # adds results re-ranked by k-reciprocal neighbours, under names of their own; at the end only
    e.rerank_k1 = 20  # neighbours that must be mutual
    e.rerank_k2 = 6  # neighbours whose encodings are averaged
    e.rerank_lambda = 0.3  # weight of the original distance
    e.rerank_memory = 2048  # MiB that re-ranking may take beside the embeddings
    e.baselines = False  # adds raw pixels and the untrained network to the results table
    # Keeps query and gallery embeddings of the last evaluation in <workdir>/embeddings, for the report: 28 KiB per
    # image with two streams of seven parts of 512 numbers, 400 MB for Celeb-reID.
    e.keep_embeddings = True
    # Checkpoint the results come from: "last", "validation" (best mAP on held-out identities), or "stitched" (each
    # stream from the checkpoint with its own best mAP, as the released code does: on the test split unless
    # data.validation_identities holds identities out).
    e.report = "last"

    c.checkpoint = k = ml_collections.ConfigDict()
    k.every = 1  # epochs between checkpoints
    k.asynchronous = True  # written while training continues; False waits for the disk

    c.mesh = ml_collections.ConfigDict()
    c.mesh.data = -1  # devices along the batch, in groups of mesh.model; -1 = all
    # Devices that share the classifiers between them, for many identities (docs/scaling.md); each of them still has
    # its own part of the batch. It has to divide the number of identities or model.feature_dim.
    c.mesh.model = 1

    c.compilation_cache = ""  # folder of the persistent compilation cache; "" = <workdir>/xla_cache, "none" = off
    c.lock()
    return c

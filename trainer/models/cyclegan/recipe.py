"""CycleGAN: two generators translate between domains, and each undoes what the other does.

Paper: Zhu, Park, Isola and Efros, ICCV 2017, https://arxiv.org/abs/1703.10593
Ours:  where pictures have classes, a judge of each domain learns them; it moves no other network
       and tells whether a translation keeps the class.
"""

import keras
from keras import ops

from trainer.generators.drawing import JUDGE_RATE, standardise
from trainer.layers.image_pool import ImagePool
from trainer.losses.adversarial import as_float
from trainer.metrics.class_coverage import build_judge, cross_entropy
from trainer.models.cyclegan.config import Config
from trainer.models.cyclegan.networks import build_discriminator, build_generator
from trainer.models.cyclegan.schedule import ConstantThenLinear
from trainer.models.cyclegan.translations import LUMA, Translations, panels
from trainer.recipe import Recipe, Signature, Update


def recipe(config: Config) -> Recipe:
    """Two generators move together, then two discriminators, then the judges."""
    a, b = config.channels_a, config.channels_b
    a_to_b = build_generator(config, a, b, 0, "a_to_b")
    b_to_a = build_generator(config, b, a, 1, "b_to_a")
    networks = {
        "a_to_b": a_to_b,
        "b_to_a": b_to_a,
        "discriminator_a": build_discriminator(config, a, 2, "discriminator_a"),
        "discriminator_b": build_discriminator(config, b, 3, "discriminator_b"),
    }
    discriminator_a, discriminator_b = networks["discriminator_a"], networks["discriminator_b"]
    if config.pool_size:
        networks |= {f"pool_{side}": build_pool(config, n) for side, n in (("a", a), ("b", b))}

    def in_a(image):
        return _with_channels(standardise(image), a)

    def in_b(image):
        return _with_channels(standardise(image), b)

    def generators_loss(batch):
        real_a, real_b = in_a(batch["image_a"]), in_b(batch["image_b"])
        fake_b, fake_a = a_to_b(real_a, training=True), b_to_a(real_b, training=True)
        adversarial = _distance_from(1.0, discriminator_b(fake_b, training=True))
        adversarial += _distance_from(1.0, discriminator_a(fake_a, training=True))
        cycle = _cycle_loss(config, b_to_a(fake_b, training=True), real_a)
        cycle += _cycle_loss(config, a_to_b(fake_a, training=True), real_b)
        total = adversarial + config.cycle_weight * cycle
        extras = {"fake_a": fake_a, "fake_b": fake_b, "adversarial": adversarial, "cycle": cycle}
        if config.identity:
            identity = _cycle_loss(config, a_to_b(real_b, training=True), real_b)
            identity += _cycle_loss(config, b_to_a(real_a, training=True), real_a)
            total += config.cycle_weight * config.identity_weight * identity
            extras["identity"] = identity
        return total, extras

    def discriminators_loss(batch):
        def loss(side, real):
            discriminator, fake = networks[f"discriminator_{side}"], batch[f"fake_{side}"]
            if config.pool_size:
                fake = networks[f"pool_{side}"]([fake, batch[f"pool_{side}"]])
            # The authors' code: half, so that it learns half as fast as the generators.
            return 0.5 * (
                _distance_from(1.0, discriminator(real, training=True))
                + _distance_from(0.0, discriminator(fake, training=True))
            )

        loss_a, loss_b = loss("a", in_a(batch["image_a"])), loss("b", in_b(batch["image_b"]))
        return loss_a + loss_b, {"discriminator_a": loss_a, "discriminator_b": loss_b}

    def adam():
        steps = max(config.train_examples // config.batch_size, 1)
        decay_epochs = round(config.decay_share * config.epochs)
        rate = ConstantThenLinear(config.learning_rate, config.epochs, decay_epochs, steps)
        return keras.optimizers.Adam(rate, beta_1=config.momentum, epsilon=1e-8)

    def optimizers(*names):
        return {name: adam() for name in names}

    updates = [
        Update(generators_loss, optimizers("a_to_b", "b_to_a")),
        Update(discriminators_loss, optimizers("discriminator_a", "discriminator_b")),
    ]
    if config.num_classes:
        for number, (side, channels) in enumerate((("a", a), ("b", b))):
            shape = (config.image_size, config.image_size, channels)
            networks[f"judge_{side}"] = build_judge(
                shape, config.num_classes, config.seed + 1 + number
            )

        def judges_loss(batch):
            loss_a = cross_entropy(networks["judge_a"], in_a(batch["image_a"]), batch["label_a"])
            loss_b = cross_entropy(networks["judge_b"], in_b(batch["image_b"]), batch["label_b"])
            return loss_a + loss_b

        judges = {name: keras.optimizers.Adam(JUDGE_RATE) for name in ("judge_a", "judge_b")}
        updates.append(Update(judges_loss, judges))

    def judged(side, image):
        return ops.softmax(as_float(networks[f"judge_{side}"](image, training=False)))

    def predict(batch):
        real_a, real_b = in_a(batch["image"]), in_b(batch["image"])
        fake_b, fake_a = a_to_b(real_a, training=False), b_to_a(real_b, training=False)
        outputs = {
            "image_a": _picture(fake_a),
            "image_b": _picture(fake_b),
            "back_in_a": _picture(b_to_a(fake_b, training=False)),
            "back_in_b": _picture(a_to_b(fake_a, training=False)),
        }
        if config.num_classes:
            outputs |= {
                "probability_a": judged("a", as_float(fake_a)),
                "probability_b": judged("b", as_float(fake_b)),
                "real_probability_a": judged("a", real_a),
                "real_probability_b": judged("b", real_b),
            }
        return outputs

    def to_b(image):
        return {"image_b": _picture(a_to_b(in_a(image), training=False))}

    def to_a(image):
        return {"image_a": _picture(b_to_a(in_b(image), training=False))}

    def samples(batch):
        in_other = ops.where(
            ops.reshape(ops.equal(batch["domain"], 0), (-1, 1, 1, 1)),
            _coloured(to_b(batch["image"])["image_b"]),
            _coloured(to_a(batch["image"])["image_a"]),
        )
        return {"Translated to the other domain": in_other}

    size = config.image_size
    inputs = {"image": keras.KerasTensor((None, size, size, 3))}
    about = (
        f"An RGB picture of domain {{}} of {size} x {size} pixels with values in [0, 255], and out "
        "comes what it is in domain {} ({}), with values in [0, 1]."
    )
    return Recipe(
        networks=networks,
        updates=updates,
        predict=predict,
        metrics=lambda class_names: [Translations(class_names, config.num_classes)],
        signatures={
            "a_to_b": Signature(to_b, inputs, about.format("A", "B", "`image_b`")),
            "b_to_a": Signature(to_a, inputs, about.format("B", "A", "`image_a`")),
        },
        panels=panels,
        noise={"pool_a": (2,), "pool_b": (2,)} if config.pool_size else {},
        samples=samples,
        examples_in_training=1_000,
        best_by="frechet_distance_mobilenetv2_a_to_b",
        lowest_is_best=True,
    )


def build_pool(config: Config, channels: int) -> keras.Model:
    """Maps pictures [batch, size, size, channels] and noise [batch, 2] to earlier pictures."""
    image = keras.Input((config.image_size, config.image_size, channels), name="image")
    draw = keras.Input((2,), name="draw")
    return keras.Model([image, draw], ImagePool(config.pool_size, name="pool")(image, draw))


def _distance_from(wanted, scores):
    """Least squares (Mao et al. 2017): the mean squared distance of all scores."""
    return ops.mean(ops.square(as_float(scores) - wanted))


def _cycle_loss(config, image, wanted):
    difference = as_float(image) - as_float(wanted)
    return ops.mean(ops.abs(difference) if config.cycle_loss == "l1" else ops.square(difference))


def _picture(image):
    """From [-1, 1] to [0, 1]."""
    return (as_float(image) + 1.0) / 2.0


def _with_channels(image, channels):
    """Grey of RGB pictures, where there is to be one channel."""
    if channels == 3:
        return image
    return ops.sum(image * ops.array(LUMA, image.dtype), axis=-1, keepdims=True)


def _coloured(image):
    return ops.broadcast_to(image, (*ops.shape(image)[:3], 3))

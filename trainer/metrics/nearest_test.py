import numpy as np

from trainer.metrics.nearest import SHOWN, nearest, panels, squared_distances


def test_distances_are_those_of_pythagoras() -> None:
    points, others = np.array([[0.0, 0.0], [3.0, 0.0]]), np.array([[0.0, 4.0], [3.0, 1.0]])
    np.testing.assert_allclose(squared_distances(points, others), [[16, 10], [25, 1]])


def test_a_picture_is_nearest_to_itself_among_others() -> None:
    images = np.random.default_rng(0).uniform(size=(20, 4, 4, 3)).astype(np.float32)
    order = np.random.default_rng(1).permutation(20)
    np.testing.assert_array_equal(nearest(images[order], images), order)
    assert (squared_distances(*(images.reshape(20, -1),) * 2) >= 0).all()


def test_panels_show_what_was_drawn_beside_what_is_real() -> None:
    real = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 1), np.uint8)
    drawn = (real[::-1] / 255.0).astype(np.float32)
    probability = np.tile(np.float32([0.25, 0.75]), (30, 1))
    shown, alike, beside = panels(
        {"image": real}, {"image": drawn, "generated_probability": probability}, ("cat", "dog")
    )
    assert shown.captions == ("dog 75%",) * SHOWN
    np.testing.assert_array_equal(shown.images, drawn[:SHOWN])
    np.testing.assert_allclose(alike.images, drawn[:SHOWN], atol=1e-7)
    assert "30" in alike.title
    np.testing.assert_allclose(beside.images, real[:SHOWN] / 255.0, atol=1e-7)


def test_panels_without_a_judge_have_no_captions() -> None:
    image = np.zeros((2, 4, 4, 3), np.float32)
    found = panels({"image": image}, {"image": image}, ())
    assert [p.captions for p in found] == [()] * 3
    assert [len(p.images) for p in found] == [2, 2, 2]

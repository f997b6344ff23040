"""What `import pipeline` offers."""

import pytest

import pipeline


def test_every_public_name_can_be_imported_and_is_listed_once() -> None:
    assert set(pipeline.__all__) == set(pipeline._HOME_OF)
    assert len(pipeline.__all__) == len(set(pipeline.__all__))
    for name in pipeline.__all__:
        assert getattr(pipeline, name) is not None


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pipeline.nothing

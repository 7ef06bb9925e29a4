"""A mistake in a configuration is found before anything happens, and told in one line."""

import json

import pytest
from conftest import ROOT, call

from dcgan_jax import config as configuration
from dcgan_jax import fields
from dcgan_jax.runtime.errors import UserError


def changed(**fields):
    config = configuration.default_config()
    with config.unlocked():
        config.update(fields)
    return config


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"generater_lr": 1.0}, "config.generater_lr: unknown field; did you mean config.generator_lr?"),
        ({"data": {"pth": "x"}}, "config.data.pth: unknown field; did you mean config.data.path?"),
        ({"image_size": (50, 50)}, "found (50, 50), expected multiples of 8"),
        ({"image_size": (64, 64, 64)}, "height,width"),
        ({"image_size": (63, 72)}, "try --config.image_size=64,64"),
        ({"image_size": (0,)}, "height,width"),
        ({"image_size": (96, 50)}, "try --config.image_size=96,48"),
        ({"channels": 0}, "config.channels: found 0, expected 1 (grey), 3 (colour), 4"),
        ({"channels": 257}, "up to 256"),
        ({"channels": 6, "augment": "color,cutout"}, "expected translation,cutout: 'color' is of 1, 3 or 4 channels"),
        ({"batch_size": 0}, "at least 2"),
        ({"generator_lr": -1.0}, "above 0"),
        ({"generator_lr": float("nan")}, "above 0"),
        ({"b1": 1.0}, "[0, 1)"),
        ({"dtype": "float16"}, "'bfloat16'"),
        ({"prior": "gauss"}, "'normal', 'uniform'"),
        ({"data": {"source": "web"}}, "config.data.source: found 'web'"),
        ({"kernel_size": 1}, "config.kernel_size"),
        ({"strides": (1, 2)}, "expected an odd kernel"),
        ({"strides": (2, 2), "features": (4, 4, 4)}, "found 2 strides for 3 layers"),
        ({"num_classes": 1}, "0 (no labels) or at least 2"),
        ({"lr_decay_steps": 30_000}, "at most num_steps"),
        ({"lr_decay_share": 1.5}, "in [0, 1]"),
        ({"width": 2.5}, "a whole number"),
        ({"seed": 2**31}, "less than 2**31"),
        ({"num_steps": 2**31}, "less than 2**31"),
        ({"image_size": (4097, 64)}, "up to 4096"),
        ({"width": 10**6}, "weights in a network, expected less than 2**31"),
        ({"kernel_size": 10**6}, "weights in a network, expected less than 2**31"),
        ({"latent_dim": 10**9}, "weights in a network, expected less than 2**31"),
        ({"dense": (10**5, 10**5)}, "weights in a network, expected less than 2**31"),
        ({"batch_size": 10**9}, "pixels in a batch, expected less than 2**31"),
        ({"discriminator_steps": 101}, "1 to 100"),
        ({"batch_size": True}, "a whole number"),
        ({"batch_size": 1}, "at least 2"),
        ({"num_steps": 0}, "at least 1"),
        ({"steps_per_call": -1}, "config.steps_per_call: found -1, expected 0 or more"),
        (
            {"steps_per_call": 9, "log_every": 12, "sample_every": 18, "checkpoint_every": 36},
            "config.steps_per_call: found 9, expected 0 or a number that divides log_every (12), sample_every (18), "
            "checkpoint_every (36); try 6",
        ),
        ({"steps_per_call": 3, "log_every": 1}, "try 1"),
    ],
)
def test_mistakes_are_told_in_one_line(fields, told):
    config = changed()
    with config.unlocked():
        for name, value in fields.items():
            if isinstance(value, dict):
                config[name].update(value)
            else:
                if name in config:
                    del config[name]  # or ConfigDict would refuse another type
                config[name] = value
    with pytest.raises(UserError) as error:
        configuration.validate(config)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_field_is_told():
    config = changed()
    with config.unlocked():
        del config["b1"]
    with pytest.raises(UserError, match=r"config\.b1: missing"):
        configuration.validate(config)


def test_one_number_is_a_square_and_the_original_stays_as_it_was():
    config = changed(image_size=(32,))
    assert configuration.validate(config).image_size == (32, 32)
    assert config.image_size == (32,)


@pytest.mark.parametrize("name", ["default", "paper", "torch"])
def test_recipes_are_valid(name):
    assert configuration.validate(configuration.recipe(name)).recipe == name


def test_an_unknown_recipe_lists_those_there_are():
    with pytest.raises(UserError, match="'default', 'stable', 'paper', 'torch'"):
        configuration.recipe("papr")


@pytest.mark.parametrize(
    ("size", "width", "features"),
    [((64, 64), 128, (128, 256, 512, 1024)), ((28, 28), 64, (64, 128)), ((32, 32), 64, (64, 128, 256)),
     ((256, 256), 64, (64, 128, 256, 512, 512, 512)), ((96, 64), 64, (64, 128, 256, 512))],
)  # fmt: skip
def test_layers_follow_from_the_size(size, width, features):
    assert configuration.layers(changed(image_size=size, width=width)) == (features, (2,) * len(features))


def test_differences_name_what_a_resumed_run_may_not_change():
    old, new = (
        changed().to_dict(),
        changed(num_steps=7, keep=9, steps_per_call=5, width=32, image_size=(32, 32)).to_dict(),
    )
    assert configuration.differences(old, new) == [
        "image_size: (64, 64) there, (32, 32) here",
        "width: 64 there, 32 here",
    ]
    assert configuration.differences({}, changed().to_dict()) == [], "a field younger than the run had its default"
    as_json = old | {"image_size": [64, 64], "features": []}
    assert configuration.differences(as_json, changed().to_dict()) == []


def test_what_finished_steps_were_computed_by_may_not_change():
    # Of the fields of networks and training, the length of a run and the steps of a call alone.
    may = {
        name for name, field in (fields.SECTIONS["Networks"] | fields.SECTIONS["Training"]).items() if field.may_change
    }
    assert may == {"num_steps", "steps_per_call"}
    assert not any(fields.FIELDS[name].may_change for name in ("seed", "image_size", "data.crop", "data.flip"))


def test_a_run_with_decay_may_not_change_its_length():
    old, new = (changed(lr_decay_steps=5, num_steps=n).to_dict() for n in (10, 20))
    assert configuration.differences(old, new) == ["num_steps: 10 there, 20 here"]


def test_a_run_that_decays_over_a_share_may():
    old, new = (changed(lr_decay_share=0.5, num_steps=n).to_dict() for n in (10, 20))
    assert configuration.differences(old, new) == []


def test_every_default_is_allowed():
    for name in fields.FIELDS:
        fields.check_value(name, {name: fields.FIELDS[name].default})


@pytest.mark.parametrize("name", sorted(configuration.DATA_SETS))
def test_every_data_set_has_a_file_and_valid_recipes(name):
    assert (ROOT / "configs" / f"{name}.py").exists()
    for recipe in configuration.DATA_SETS[name].steps:
        config = configuration.validate(configuration.for_data_set(name, recipe))
        assert config.recipe == recipe
        assert config.num_steps == configuration.DATA_SETS[name].steps[recipe]


def test_help_names_all_fields_and_explains_them_when_asked_to():
    short, long = call("train", "--help"), call("train", "--help_config")
    assert (long.returncode, long.stderr) == (0, "")
    for name, field in fields.FIELDS.items():
        assert f" {name}" in short.stdout
        assert field.help in long.stdout
        assert f"  --config.{name}=" in long.stdout
    assert "--config.b1=" not in short.stdout
    assert call("prepare", "--help_config").stdout == long.stdout
    assert call("sample", "--help_config").returncode == 2, "it takes no configuration"


def test_the_whole_configuration_is_printed_as_a_run_would_record_it(tmp_path):
    done = call("train", "--config=digits", "--config.image_size=16", "--print_config", f"--workdir={tmp_path}/new")
    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (0, "", [])
    printed = configuration.default_config().to_dict() | json.loads(done.stdout)
    assert fields.flatten(printed).keys() == set(fields.FIELDS)
    assert (printed["image_size"], printed["width"]) == ([16, 16], 32)
    wrong = call("train", "--config=digits", "--config.b1=2", "--print_config")
    assert (wrong.returncode, wrong.stdout) == (2, "")


def test_the_page_about_the_fields_is_up_to_date():
    assert (ROOT / "docs" / "config.md").read_text() == fields.markdown(), "python -m dcgan_jax.fields > docs/config.md"

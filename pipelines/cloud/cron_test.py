import datetime
import itertools
import zoneinfo

import pytest

from pipelines.cloud import cron
from trainer.errors import UserError

UTC = datetime.UTC
NOW = datetime.datetime(2026, 11, 22, 12, tzinfo=UTC)


def moments(expression, zone, after, count):
    found = itertools.islice(cron.following(expression, zone, after), count)
    return [moment.isoformat() for moment in found]


def test_that_a_zone_moves_a_run_when_its_clocks_change():
    # Paris is an hour before UTC in winter and two in summer; clocks change on 2027-03-28.
    after = datetime.datetime(2027, 3, 20, tzinfo=UTC)
    assert moments("0 3 * * 1", "Europe/Paris", after, 3) == [
        "2027-03-22T02:00:00+00:00",
        "2027-03-29T01:00:00+00:00",
        "2027-04-05T01:00:00+00:00",
    ]


def test_that_an_hour_that_is_left_out_or_comes_twice_has_one_run():
    spring = datetime.datetime(2027, 3, 27, 12, tzinfo=UTC)
    # 02:30 does not exist on the 28th: the run is at 03:00 of Paris.
    assert moments("30 2 * * *", "Europe/Paris", spring, 2) == [
        "2027-03-28T01:00:00+00:00",
        "2027-03-29T00:30:00+00:00",
    ]
    autumn = datetime.datetime(2026, 10, 24, 12, tzinfo=UTC)
    # 02:30 comes twice on the 25th, at 00:30 and 01:30 of UTC.
    assert moments("30 2 * * *", "Europe/Paris", autumn, 2) == [
        "2026-10-25T00:30:00+00:00",
        "2026-10-26T01:30:00+00:00",
    ]
    between = datetime.datetime(2026, 10, 25, 1, 10, tzinfo=UTC)
    assert moments("30 2 * * *", "Europe/Paris", between, 1) == ["2026-10-26T01:30:00+00:00"]


def test_that_the_last_moment_is_due_and_not_the_one_at_the_beginning():
    def at(*time):
        return datetime.datetime(2026, 11, 23, *time, tzinfo=UTC)

    assert cron.due("*/10 * * * *", "UTC", at(2, 50), at(3, 25)) == at(3, 20)
    assert cron.due("*/10 * * * *", "UTC", at(3, 20), at(3, 25)) is None
    assert cron.due("*/10 * * * *", "UTC", at(3, 19, 59), at(3, 20)) == at(3, 20)


@pytest.mark.parametrize(
    ("expression", "what"),
    [
        ("0 3 * *", "five fields"),
        ("60 3 * * 1", "a minute that is from 0 to 59; got '60'"),
        ("0 3 * * 7", "a day of the week that is from 0 to 6; Sunday is 0; got '7'"),
        ("0 3 L * *", "a day of the month that is from 1 to 31; got 'L'"),
        ("5/10 3 * * *", "a minute that has [*] or a range before /"),
        ("*/0 3 * * *", "a minute that has steps of 1 to 59"),
        ("0 5-3 * * *", "an? hour that has ranges that begin with the smaller value"),
        ("0 3 * * mon#2", "a day of the week that is [*], 0 to 6"),
        ("0 3 30 2 *", "come round at some time; '0 3 30 2 [*]' never does"),
        ("@daily", "five fields"),
    ],
)
def test_that_what_not_all_targets_understand_is_refused(expression, what):
    with pytest.raises(ValueError, match=what):
        cron.checked(expression)


def test_that_an_expression_is_written_with_single_spaces():
    assert cron.checked(" 0  3 * jan,Feb\tMON-FRI/2 ") == "0 3 * jan,Feb MON-FRI/2"


def test_that_a_zone_that_is_misspelt_is_told_with_the_right_one():
    with pytest.raises(ValueError, match="got 'Europe/Pariss'; did you mean 'Europe/Paris'"):
        cron.zone_of("Europe/Pariss")


@pytest.mark.parametrize(
    ("expression", "zone", "in_utc"),
    [
        ("0 3 * * 1", "UTC", "0 3 * * 1"),
        ("0 3 * * 1", "Etc/UTC", "0 3 * * 1"),
        ("0 3 * * mon", "Asia/Tokyo", "0 18 * * 0"),  # nine hours before, the day before
        ("0 12 * * 1", "Asia/Tokyo", "0 3 * * 1"),
        ("15 3 1 * *", "America/Phoenix", "15 10 1 * *"),  # seven hours after
        ("0 4 * * *", "Asia/Kolkata", "30 22 * * *"),  # five hours and a half
        ("*/20 * * * *", "Asia/Tokyo", "0,20,40 * * * *"),
        ("0 8,9,12 * * *", "Asia/Tokyo", "0 0,3,23 * * *"),
    ],
)
def test_that_a_zone_without_summer_time_has_an_equal_in_utc(expression, zone, in_utc):
    assert cron.in_utc(expression, zone, NOW) == in_utc
    given, other = (
        itertools.islice(cron.following(text, where, NOW), 40)
        for text, where in ((expression, zone), (in_utc, "UTC"))
    )
    assert list(given) == list(other)


@pytest.mark.parametrize(
    ("expression", "zone", "why"),
    [
        ("0 3 * * 1", "Europe/Paris", "clocks change there"),
        ("0 3 1 * *", "Asia/Tokyo", "its days begin at another hour"),
        ("0 8,10 * * 1", "Asia/Tokyo", "its days begin at another hour"),
        ("0,15 4 * * *", "Asia/Kathmandu", "its hours are not whole ones"),
    ],
)
def test_that_what_utc_has_no_equal_of_is_refused(expression, zone, why):
    if zone == "Asia/Kathmandu":  # 5:45: 04:00 and 04:15 are 22:15 and 22:30, of one hour
        assert cron.in_utc(expression, zone, NOW) == "15,30 22 * * *"
        expression = "0,50 4 * * *"  # 22:15 and 23:05
    with pytest.raises(UserError, match=why):
        cron.in_utc(expression, zone, NOW)


@pytest.mark.parametrize(
    ("expression", "zone", "here", "covering"),
    [
        ("0 3 * * 1", "Europe/Paris", "Europe/Berlin", "0 3 * * 1"),
        ("0 3 * * 1", "UTC", "UTC", "0 3 * * 1"),
        ("0 3 * * 1", "Europe/Paris", "UTC", "0 1,2 * * *"),
        ("0 3 * * 1", "UTC", "Europe/Paris", "0 4,5 * * *"),
        ("0 1 * * *", "Asia/Kolkata", "UTC", "30 19 * * *"),
        # Once a year 02:30 is moved to 03:00, which is 01:00 of UTC.
        ("30 2 * * *", "Europe/Paris", "UTC", "0,30 0,1 * * *"),
    ],
)
def test_that_an_entry_comes_round_whenever_it_may_be_time(expression, zone, here, covering):
    assert cron.covering(expression, zone, NOW, zoneinfo.ZoneInfo(here)) == covering
    wanted = list(itertools.islice(cron.following(expression, zone, NOW), 120))
    until = wanted[-1]
    rounds = itertools.takewhile(
        lambda moment: moment <= until, cron.following(covering, here, NOW)
    )
    assert set(wanted) <= set(rounds)

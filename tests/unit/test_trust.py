from __future__ import annotations

import os
import pwd

import pytest

from paraschut.errors import StoreError, TrustError
from paraschut.store.trust import check_trusted

NOBODY = 65534
root_only = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")


@pytest.fixture
def place(tmp_path):
    """A file in a folder of ours."""
    folder = tmp_path / "it's mine"
    folder.mkdir(mode=0o700)
    path = folder / "index.db"
    path.write_bytes(b"")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o644, 0o755])
def test_what_only_we_can_write_is_loaded(place, mode):
    place.chmod(mode)
    check_trusted(str(place))


@pytest.mark.parametrize("mode", [0o660, 0o622, 0o606, 0o777])
def test_a_file_that_others_can_write_is_not_loaded(place, mode):
    place.chmod(mode)
    with pytest.raises(TrustError, match=rf"can be written by others \(mode 0{mode:o}\)") as caught:
        check_trusted(str(place))
    assert str(caught.value).startswith(str(place))
    assert f"chmod go-w '{place}'" in str(caught.value)


@pytest.mark.parametrize("mode", [0o770, 0o722, 0o707, 0o1777])
def test_a_folder_that_others_can_write_is_named(place, mode):
    place.parent.chmod(mode)
    with pytest.raises(TrustError, match=r"can be written by others \(mode ") as caught:
        check_trusted(str(place))
    assert str(caught.value).startswith(str(place.parent) + " ")


def test_a_folder_above_that_everybody_can_write_is_named(place, tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(TrustError, match=r"can be written by everybody \(mode 0777\).*chmod o-w") as caught:
        check_trusted(str(place))
    assert str(caught.value).startswith(str(tmp_path) + " ")
    tmp_path.chmod(0o1777)
    check_trusted(str(place))
    tmp_path.chmod(0o775)
    check_trusted(str(place))


def test_what_a_link_leads_to_is_what_counts(place, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(place)
    check_trusted(str(link))
    place.parent.chmod(0o777)
    with pytest.raises(TrustError):
        check_trusted(str(link))


@root_only
def test_what_belongs_to_somebody_else_is_not_loaded(place):
    os.chown(place, NOBODY, NOBODY)
    with pytest.raises(TrustError, match=rf"belongs to user {NOBODY}, not to you.*trusted_users") as caught:
        check_trusted(str(place))
    assert str(caught.value).startswith(str(place))


@root_only
def test_a_folder_that_belongs_to_somebody_else_is_named(place):
    os.chown(place.parent, NOBODY, NOBODY)
    with pytest.raises(TrustError, match="belongs to user") as caught:
        check_trusted(str(place))
    assert str(caught.value).startswith(str(place.parent) + " ")


@root_only
def test_whom_the_configuration_trusts_may_have_written_it(place):
    name = pwd.getpwuid(NOBODY).pw_name
    for path in (place, place.parent):
        os.chown(path, NOBODY, NOBODY)
    check_trusted(str(place), [name])
    check_trusted(str(place), [name, pwd.getpwuid(0).pw_name])
    place.chmod(0o666)
    with pytest.raises(TrustError, match="can be written by others"):
        check_trusted(str(place), [name])


def test_a_trusted_user_that_does_not_exist_is_said(place):
    with pytest.raises(TrustError, match=r"trusted_users in the configuration names 'no such user, I hope'"):
        check_trusted(str(place), ["no such user, I hope"])


def test_a_lack_of_trust_is_an_error_of_the_store():
    assert issubclass(TrustError, StoreError)

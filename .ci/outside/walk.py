"""Walks through the API with the generated client, as a program of a user's would. Its types are checked (`mypy --strict`)."""

import base64
import email
import hmac
import pathlib
import re
import struct
import sys
import time
from email.message import Message

from api import AuthenticatedClient, Client
from api.api.accounts import forgot_password, get_me, register, reset_password, verify
from api.api.administration import get_figures
from api.api.api_keys import create_key, list_keys
from api.api.open_ import get_status
from api.api.projects import create_project, list_projects
from api.api.second_factor import begin_totp, confirm_totp, disable_totp
from api.api.sessions import list_sessions, login, login_with_code, logout, refresh
from api.models import (
    AnyAddress,
    Code,
    Credentials,
    CurrentPassword,
    KeyRequest,
    EmailVerified,
    NewApiKey,
    PasswordReset,
    Problem,
    ProjectName,
    ProjectPage,
    TotpConfirmed,
    RefreshToken,
    Registration,
    Role,
    SecondFactorProblem,
    SecondStep,
    SessionList,
    ServerStatus,
    TokenPair,
    TotpDisabling,
    TotpSetup,
    User,
    ValidationProblem,
)
from api.models.api_key_list import ApiKeyList

BASE, MAIL = sys.argv[1], pathlib.Path(sys.argv[2])
ADDRESS, PASSWORD, OTHER = "walker@example.com", "Correct-Horse-1", "Another-Horse-2"


def link(subject: str) -> str:
    """The token in the letter with this word in its subject."""
    for _ in range(100):
        for path in MAIL.glob("*.eml"):
            letter: Message = email.message_from_bytes(path.read_bytes())
            body = letter.get_payload(decode=True)
            assert isinstance(body, bytes)
            token = re.search(r"token=(\S+)", body.decode())
            if letter["to"] == ADDRESS and subject in letter["subject"].lower() and token:
                return token[1]
        time.sleep(0.1)
    raise TimeoutError(subject)


def code(secret: str, step: int = 0) -> str:
    """RFC 6238."""
    moment = struct.pack(">Q", int(time.time()) // 30 + step)
    digest = hmac.digest(base64.b32decode(secret + "=" * (-len(secret) % 8)), moment, "sha1")
    at = digest[-1] & 15
    number: int = struct.unpack(">I", digest[at : at + 4])[0] & 0x7FFFFFFF
    return f"{number % 1_000_000:06}"


def by(pair: TokenPair) -> AuthenticatedClient:
    return AuthenticatedClient(BASE, pair.access_token, raise_on_unexpected_status=True)


anyone = Client(BASE, raise_on_unexpected_status=True)
status = get_status.sync(client=anyone)
assert isinstance(status, ServerStatus) and status.status == "ok"

weak = register.sync(client=anyone, body=Registration(email=ADDRESS, password="weak"))
assert isinstance(weak, ValidationProblem) and {error.field for error in weak.errors} == {"password"}
user = register.sync(client=anyone, body=Registration(email=ADDRESS, password=PASSWORD))
assert isinstance(user, User) and user.role is Role.VIEWER and not user.email_verified and user.plan is None

credentials = Credentials(email=ADDRESS, password=PASSWORD)
early = login.sync(client=anyone, body=credentials)
assert isinstance(early, SecondFactorProblem) and early.code == "email_not_verified"
verified = verify.sync(client=anyone, token=link("confirm"))
assert isinstance(verified, EmailVerified) and verified.email_verified
pair = login.sync(client=anyone, body=credentials)
assert isinstance(pair, TokenPair)

me = get_me.sync(client=by(pair))
assert isinstance(me, User) and me.id == user.id and me.email_verified
sessions = list_sessions.sync(client=by(pair))
assert isinstance(sessions, SessionList) and [session.current for session in sessions.sessions] == [True]
projects = list_projects.sync(client=by(pair), limit=10)
assert isinstance(projects, ProjectPage) and len(projects.projects) <= 10
for answer in (
    create_project.sync(client=by(pair), body=ProjectName(name="Apollo")),
    get_figures.sync(client=by(pair)),
):
    assert isinstance(answer, Problem) and (answer.status, answer.code) == (403, "insufficient_permissions")

key = create_key.sync(client=by(pair), body=KeyRequest(name="robot"))
assert isinstance(key, NewApiKey) and key.role is Role.VIEWER and key.expires_at is None
keys = list_keys.sync(client=by(pair))
assert isinstance(keys, ApiKeyList) and [listed.id for listed in keys.keys] == [key.id]
robot = get_me.sync(client=AuthenticatedClient(BASE, key.key))
assert isinstance(robot, User) and robot.id == user.id

renewed = refresh.sync(client=anyone, body=RefreshToken(refresh_token=pair.refresh_token))
assert isinstance(renewed, TokenPair) and renewed.refresh_token != pair.refresh_token
assert logout.sync_detailed(client=anyone, body=RefreshToken(refresh_token=renewed.refresh_token)).status_code == 204
over = get_me.sync(client=by(renewed))
assert isinstance(over, Problem) and over.code == "token_revoked"

forgot_password.sync_detailed(client=anyone, body=AnyAddress(email=ADDRESS))
done = reset_password.sync_detailed(client=anyone, body=PasswordReset(token=link("password"), password=OTHER))
assert done.status_code == 204, done
credentials = Credentials(email=ADDRESS, password=OTHER)
pair = login.sync(client=anyone, body=credentials)
assert isinstance(pair, TokenPair)

setup = begin_totp.sync(client=by(pair), body=CurrentPassword(current_password=OTHER))
assert isinstance(setup, TotpSetup)
codes = confirm_totp.sync(client=by(pair), body=Code(code=code(setup.secret, -1)))
assert isinstance(codes, TotpConfirmed) and len(codes.recovery_codes) == 10
first = login.sync(client=anyone, body=credentials)
assert isinstance(first, SecondFactorProblem) and isinstance(first.login_token, str)
second = login_with_code.sync(client=anyone, body=SecondStep(login_token=first.login_token, code=code(setup.secret)))
assert isinstance(second, TokenPair)
off = TotpDisabling(current_password=OTHER, code=codes.recovery_codes[0])
assert disable_totp.sync_detailed(client=by(second), body=off).status_code == 204

"""What schemathesis can't read out of a schema: who asks, and what a good password is."""

import os
import urllib.error
import urllib.request
import json

import schemathesis
from hypothesis import strategies

API, WHO = os.environ["API"], os.environ["WHO"]


def asked(path, body=None, **headers):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(API + path, data, {"content-type": "application/json", **headers})
    with urllib.request.urlopen(request) as response:
        return json.load(response)


class SignedIn:
    """Logs in anew where the session was ended, as some of what is asked does."""

    token = None

    def get(self, case, context):
        try:
            asked("/auth/me", authorization=f"Bearer {self.token}")
        except urllib.error.HTTPError:
            credentials = {"email": f"{WHO}@example.com", "password": "Correct-Horse-1"}
            self.token = asked("/auth/login", credentials)["access_token"]
        return self.token

    def set(self, case, token, context):
        case.headers["Authorization"] = f"Bearer {token}"


if WHO != "nobody":
    schemathesis.auth(refresh_interval=None)(SignedIn)

more = strategies.text(strategies.characters(codec="utf-8", exclude_characters="\0"), max_size=15)
schemathesis.openapi.format("password", more.map(lambda text: f"Aa1{text}23456789".strip()))

"""What masking hides, what it leaves, and how long it takes at worst."""

from __future__ import annotations

import json
import random
import string
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tick.config import Settings
from tick.masking import MASK, is_secret, known_secrets, mask, mask_text

CANARY = "hunter2Xy77"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["password", "a"]), inner),
)


@pytest.mark.parametrize(
    "name",
    [
        *("password", "passwd", "PASSWORD", "userPassword", "new-password", "db_password_2", "password_hash", "pwd", "pass"),
        *("token", "accessToken", "refresh_token", "csrftoken", "X-Auth-Token", "tokens", "APIToken"),
        *("secret", "client_secret", "clientSecret", "credentials", "aws.credential"),
        *("Authorization", "proxy-authorization", "auth", "basic_auth", "cookie", "Set-Cookie", "sessionid", "jwt"),
        *("api_key", "apikey", "apiKey", "APIKey", "X-API-Key", "private_key", "secretAccessKey", "signing_key"),
        *("ssn", "card", "card_number", "creditCard", "cvv", "cvc", "pin", "otp"),
        *("session", "tick_session", "tick_device", "sid", "connect.sid", "signature", "X-Hub-Signature-256", "sig", "bearer", "dsn"),
        *("webhook_url", "slackWebhookUrl", "totp", "magic_link", "resetLink", "seed_phrase", "mnemonic", "iban"),
        *("account_number", "license_key", "auth_header", "X-Amz-Signature"),
    ],
)  # fmt: skip
def test_a_member_named_like_a_secret_is_one(name):
    assert is_secret(name)
    assert mask({name: CANARY}) == {name: MASK}


@pytest.mark.parametrize(
    "name",
    [
        *("card_id", "cardLast4", "card_brand", "discard", "postcard", "cardinal", "tokenizer", "tokenize", "secretary"),
        *("token_type", "token_count", "max_tokens", "prompt_tokens", "total_tokens", "token_expires_at", "cookie_consent"),
        *("key", "keys", "idempotency_key", "monkey", "author", "authority", "passenger", "passport", "compass", "bypass"),
        *("next_page_token", "page_token", "pageToken", "cursor_token", "continuation_token", "has_password", "is_secret"),
        *("needs_auth", "password_strength", "signature_algorithm", "design", "sidebar", "session_count", "checkout_session"),
        *("user_id", "email", "name", "password_changed_at", "secret_name", "pinned", "shipping", "", "日本", "naïve"),
    ],
)  # fmt: skip
def test_a_member_with_such_letters_in_another_word_is_none(name):
    assert not is_secret(name)
    assert mask({name: "plain"}) == {name: "plain"}


class TestValue:
    def test_is_masked_wherever_it_is(self):
        value = {
            "user": {"password": CANARY, "name": "Ada"},
            "list": [{"token": [CANARY]}, (CANARY[:0], "x")],
            "ssn": 123,
        }
        assert mask(value) == {
            "user": {"password": MASK, "name": "Ada"},
            "list": [{"token": MASK}, ["", "x"]],
            "ssn": MASK,
        }

    def test_is_not_changed_itself(self):
        value = {"a": [{"password": CANARY}]}
        mask(value)
        assert value == {"a": [{"password": CANARY}]}

    @pytest.mark.parametrize("empty", [None, True, False, "", [], {}, 0])
    def test_that_holds_nothing_says_so(self, empty):
        assert mask({"password": empty}) == {"password": empty}

    @pytest.mark.parametrize("number", [512, 0.5, 0, True])
    def test_of_tokens_that_is_a_number_says_how_many(self, number):
        assert mask({"tokens": number, "used": {"Tokens": number}}) == {"tokens": number, "used": {"Tokens": number}}
        assert mask({"tokens": CANARY, "token": 512}) == {"tokens": MASK, "token": MASK}

    def test_of_a_card_is_masked_inside(self):
        card = {"brand": "visa", "last4": "4242", "exp_month": 7, "owner": {"name": "Ada", "pin": CANARY}}
        secret = {"number": CANARY, "cvc": CANARY, "token": CANARY, f"ghp_{CANARY * 4}": 1}
        masked = mask({"card": card | secret, "credit_card": CANARY})
        inside = card | {"owner": {"name": "Ada", "pin": MASK}, "number": MASK, "cvc": MASK, "token": MASK, MASK: 1}
        assert masked == {"card": inside, "credit_card": MASK}

    def test_is_masked_by_its_shape_under_any_name_and_as_a_name(self):
        token = f"ghp_{CANARY * 4}"
        assert CANARY not in json.dumps(mask({"note": f"see {token}", "seen": {token: 1}, "list": [token]}))

    def test_may_be_anything_that_is_json(self):
        assert [mask(value) for value in (None, 1, 1.5, True, "x", [], {})] == [None, 1, 1.5, True, "x", [], {}]

    def test_may_be_as_deep_as_it_likes(self):
        deep = []
        for _ in range(100_000):
            deep = [deep]
        masked, depth = mask(deep), 0
        while masked:
            masked, depth = masked[0], depth + 1
        assert depth == 100_000

    @given(JSON)
    def test_comes_out_as_json_of_the_same_form(self, value):
        masked = mask(value)
        msgspec.json.encode(masked)
        assert type(masked) is type(value) or masked == MASK
        assert mask(masked) == masked


@pytest.mark.parametrize(
    "text",
    [
        "password=¤",
        "password = ¤ and more",
        "PGPASSWORD='¤' psql",
        "{'password': '¤', 'b': 1}",
        "{'password': 'it\\'s ¤', 'b': 1}",
        '{"user": {"api_key": "¤"}}',
        '{\\"password\\": \\"¤\\"}',
        "params['password'] = '¤'",
        "password => ¤",
        "Row(id=1, token=b'¤')",
        "Authorization: Bearer ¤",
        "{'authorization': 'Basic ¤'}",
        "Authorization: Basic ¤, then",
        "Bearer ¤",
        "Cookie: theme=dark; session=¤",
        "https://api.example.com/x?token=¤&page=1",
        "https://api.example.com/x?page=1&api_key=¤#top",
        "postgres://ada:¤@db.example.com/app",
        "postgresql+psycopg://ada:p%40¤@db/app",
        "redis://:¤@cache",
        "amqp://ada:a@¤@mq:5672/",
        "error: password=¤",
        "credentials: [¤, other]",
        "sk_live_¤",
        "rk_test_¤",
        "sk-proj-¤¤",
        "whsec_¤==",
        "ghp_¤¤¤¤",
        "github_pat_¤¤",
        "glpat-¤¤",
        "xoxb-1-¤",
        "https://hooks.slack.com/services/T0/B0/¤",
        "https://discord.com/api/webhooks/1/¤",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.¤",
        "-----BEGIN PRIVATE KEY-----\n¤\n-----END PRIVATE KEY-----",
        "SG.¤¤.¤",
        "tick_env_¤¤¤",
        "tick_0123456789ab_¤¤¤",
        "tick_billing_¤¤¤",
        "tick_session=¤",
        "tick_device=¤; Path=/",
        "https://example.com/dashboard/replay/¤.¤",
        "https://api.telegram.org/bot12345:¤¤¤/sendMessage",
        "hf_¤¤¤",
        "dop_v1_¤¤¤",
        "curl -s -u ada:¤ https://example.com",
        "curl --user 'ada:¤' https://example.com",
        "curl \\\n  -u ada:¤",
        "https://hooks.zapier.com/hooks/catch/1/¤/",
        "https://acme.webhook.office.com/webhookb2/1@2/IncomingWebhook/¤/3",
        "https://example.com/a?sv=1&sig=¤&x=1",
        "https://example.com/a?signature=¤",
        "https://example.com/a?X-Amz-Expires=9&X-Amz-Signature=¤",
        "webhook-signature: v1,¤",
        "webhook-signature: v1,abc= v1a,¤/¤",
        "Stripe-Signature: t=1492774577,v1=¤,v0=¤",
        "secret%3D¤",
        "/login?next=%2Fa%3Fpage%3D2%26token%3D¤",
        "password:hunter¤",
        "Password: ¤",
        "password: correct-¤",
    ],
)  # fmt: skip
def test_a_text_is_masked(text):
    masked = mask_text(f"before {text.replace('¤', CANARY)} \nafter")
    assert CANARY not in masked
    assert MASK in masked
    assert masked.startswith("before ")
    assert masked.endswith("\nafter")


def test_an_access_key_of_aws_is_masked_and_a_word_of_its_letters_is_not():
    assert mask_text("AKIAIOSFODNN7EXAMPLE") == MASK
    assert mask_text("XAKIAIOSFODNN7EXAMPLE AKIA") == "XAKIAIOSFODNN7EXAMPLE AKIA"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "KeyError: 'password'",
        "got an unexpected keyword argument 'password'",
        "password=None, token=null, secret: false",
        'password: ""',
        "connection to postgres://ada@db:5432/app failed",
        "http://127.0.0.1:8000/a?email=ada@example.com",
        "at 12:30:01: card_id=7, max_tokens=500",
        "the tokenizer: a:b c::d e=f",
        "eyJ is how they begin, and sk_ too",
        "ValueError: 日本 \ud800 \x00",
        "max tokens: 4096, tokens=512",
        "SyntaxError: unexpected token: x",
        "token: unexpected",
        "auth: failed",
        "auth: Token expired",
        "secret: not found in vault",
        "password: field required",
        "password: Missing. Give one",
        "card: insufficient funds",
        "token: INVALID!",
        "tick_jobs_that_have_ended_per_second_and_more",
        "docker run -u 1000:1000, robot1:a",
    ],
)
def test_a_text_without_a_secret_is_left_as_it_is(text):
    assert mask_text(text) == text


@pytest.mark.parametrize(
    "secret", ["hunter2", "hunTer", "XYz", "a-b", "a_b", "ünd", "x" * 20, "'hunter'", '"hunter"', "[a, b]"]
)
def test_what_follows_a_colon_is_masked_when_it_looks_like_a_secret(secret):
    assert mask_text(f"the password: {secret} it is") == f"the password: {MASK} it is"
    assert mask_text("the password=hunter it is") == f"the password={MASK} it is"
    assert mask_text("password: token: hunter2") == f"password: token: {MASK}"


def test_what_is_around_a_secret_is_left():
    assert mask_text("postgres://ada:pw@db/app?x=1") == f"postgres://ada:{MASK}@db/app?x=1"
    assert mask_text("{'password': 'x', 'user': 'ada'}") == f"{{'password': {MASK}, 'user': 'ada'}}"
    assert mask_text("Authorization: Bearer x, trace=1") == f"Authorization: {MASK}, trace=1"
    assert mask_text("?token=x&page=2") == f"?token={MASK}&page=2"


@pytest.mark.parametrize(
    "piece",
    [
        *("a", "A", "aA", "a_", "a-", "é", "\n", " ", '"', "'", "\\", "://", "://a:", "://a:@", "a:b@", "a=", "=>", ": "),
        *("eyJ", "eyJ.", "eyJa.", "password=", 'password="', 'password=\\"', "password=[", "passwd", "token=;", "token=a;b=c"),
        *("Cookie: a=b; ", "bearer ", "Bearer \t", "xoxb-", "SG.", "AKIA", "sk-", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----"),
        *("hooks.slack.com/services/", 'x\\\\\\"', "Authorization: Bearer "),
        *("password: ", "token: token ", "tokens: 1", "%aa", "secret%3D", "secret=v1,a ", "sig=t=1,v1=a", "curl ", "curl -u ", "curl -ua"),
        *("tick_", "tick_env_", "bot1", "bot1:", "do_v1_", "hooks.zapier.com/", "/dashboard/replay/"),
    ],
)  # fmt: skip
def test_a_megabyte_of_anything_takes_no_time_to_speak_of(piece):
    text = (piece * 1_000_000)[:1_000_000]
    started = time.process_time()
    mask_text(text)
    mask({text: text})
    # Half a second of it; what is quadratic takes hours.
    assert time.process_time() - started < 30


class TestKnownSecrets:
    SETTINGS = Settings(
        database_url="postgres://ada:database-pw@db/app",
        smtp_url="smtps://ada:mail%2Fpw@smtp.example.com",
        secrets=("the cron/secret", "tiny"),
        inbound_secrets=("inbound-secret",),
        qstash_keys=("qstash-key",),
        api_keys=("billing:enqueue:api:key",),
        dashboard_password='dash"board',
        named_secrets={"stripe": ("stripe-secret", "stripe-older")},
    )

    @pytest.mark.parametrize(
        "secret",
        [
            *("database-pw", "mail/pw", "mail%2Fpw", "the cron/secret", "the%20cron%2Fsecret", "the cron\\/secret", "inbound-secret"),
            *("qstash-key", "api:key", 'dash"board', 'dash\\"board', "stripe-secret", "stripe-older"),
        ],
    )  # fmt: skip
    def test_are_masked_wherever_they_are(self, secret):
        known = known_secrets(self.SETTINGS)
        assert mask_text(f"so it said {secret}.", known) == f"so it said {MASK}."
        assert mask({"note": [f"<{secret}>"], secret: 1}, known) == {"note": [f"<{MASK}>"], MASK: 1}

    def test_are_not_looked_for_when_they_are_too_short_to_be_told_from_words(self):
        assert mask_text("a tiny text", known_secrets(self.SETTINGS)) == "a tiny text"

    def test_are_none_when_there_are_none(self):
        assert known_secrets(Settings(database_url="host=/tmp dbname=app")) == ()
        assert known_secrets(Settings(database_url="postgres://[broken")) == ()

    def test_may_hold_what_no_url_can(self):
        known = known_secrets(Settings(secrets=("caf\udce9-secret",)))
        assert mask_text("x caf\udce9-secret", known) == f"x {MASK}"

    def test_one_in_another_leaves_nothing_of_either(self):
        known = known_secrets(Settings(secrets=("secret", "secret-of-secrets")))
        assert mask_text("secret-of-secrets", known) == MASK


def test_no_canary_gets_through_whatever_is_around_it():
    chance = random.Random(7)
    for _ in range(2000):
        canary = "".join(chance.choices(string.ascii_letters + string.digits, k=20))
        form = chance.choice(
            ["password={}", '"secret": "{}"', "token: {}", "postgres://u:{}@h", "sk_live_{}", "Bearer {}"]
        )
        around = "".join(chance.choices(string.printable, k=30))
        assert canary not in mask_text(f"{around} {form.format(canary)} {around}"), (around, form)

//! Locks that pass, and those that are refused, each with its reason.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pricing_domain::Shopper;
use ring::signature::Ed25519KeyPair;
use rust_decimal::Decimal;

use super::*;

const SHOPPER: Shopper<'static> = Shopper {
    location: "NY",
    prime: true,
    quantity: 3,
    channel: Some("app"),
    segment: None,
    location_factor: None,
};

fn now() -> DateTime<Utc> {
    "2026-10-01T12:00:00.7Z".parse().unwrap()
}

fn terms() -> Terms<'static> {
    Terms {
        product_id: "P-1",
        amount: Decimal::new(4990, 2),
        currency: "EUR",
        shopper: SHOPPER,
        revision: 17,
        valid_until: None,
    }
}

fn signer(pems: &[&String]) -> QuoteLock {
    QuoteLock::new(SigningKeys::from_pem(pems).unwrap(), Duration::from_secs(900))
}

fn public(lock: &QuoteLock) -> PublicKeys {
    PublicKeys::from_json(&serde_json::to_string(&lock.public_keys()).unwrap()).unwrap()
}

/// The token with one of its three parts replaced.
fn with_part(token: &str, index: usize, part: &str) -> String {
    let mut parts: Vec<&str> = token.split('.').collect();
    parts[index] = part;
    parts.join(".")
}

fn decoded(token: &str, index: usize) -> String {
    let part = token.split('.').nth(index).unwrap();
    String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn a_lock_states_the_terms_of_its_quote() {
    let signer = signer(&[&new_key_pem().unwrap()]);
    let token = signer.lock(&terms(), now()).unwrap();
    let expected = Expected { product_id: Some("P-1"), quantity: Some(3), shopper: Some(SHOPPER) };
    let claims = verify(&token, &public(&signer), &expected, now()).unwrap();
    let stated = (claims.product_id.as_str(), claims.amount.as_str(), claims.currency.as_str());
    assert_eq!(stated, ("P-1", "49.90", "EUR"));
    assert_eq!((claims.quantity, claims.revision), (3, 17));
    assert_eq!((claims.iat, claims.exp), (now().timestamp(), now().timestamp() + 900));
    let payload: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&decoded(&token, 1)).unwrap();
    let names: Vec<&String> = payload.keys().collect();
    let expected =
        ["amount", "currency", "exp", "iat", "product_id", "quantity", "revision", "salt", "scope"];
    assert_eq!(names, expected, "nothing else of the shopper is stated");
    assert_ne!(signer.lock(&terms(), now()).unwrap(), token, "the salt is another one");
}

#[test]
fn a_lock_never_outlives_the_price() {
    let signer = signer(&[&new_key_pem().unwrap()]);
    for (valid_until, exp) in
        [("2026-10-01T12:05:00.9Z", "2026-10-01T12:05:00Z"), ("2026-10-01T13:00:00Z", "2026-10-01T12:15:00Z")]
    {
        let terms = Terms { valid_until: Some(valid_until.parse().unwrap()), ..terms() };
        let token = signer.lock(&terms, now()).unwrap();
        let claims = verify(&token, &public(&signer), &Expected::default(), now()).unwrap();
        assert_eq!(claims.exp, exp.parse::<DateTime<Utc>>().unwrap().timestamp());
    }
}

#[test]
fn a_key_signs_until_the_next_and_verifies_while_it_is_listed() {
    let [old, new] = [new_key_pem().unwrap(), new_key_pem().unwrap()];
    let before = signer(&[&old]).lock(&terms(), now()).unwrap();
    // First the next key is published, then it signs, then the old one is removed.
    let published = signer(&[&old, &new]);
    let rotated = signer(&[&new, &old]);
    let after = rotated.lock(&terms(), now()).unwrap();
    for keys in [public(&published), public(&rotated)] {
        for token in [&before, &after] {
            assert!(verify(token, &keys, &Expected::default(), now()).is_ok());
        }
    }
    let removed = public(&signer(&[&new]));
    assert!(verify(&after, &removed, &Expected::default(), now()).is_ok());
    assert_eq!(verify(&before, &removed, &Expected::default(), now()).err(), Some(LockError::UnknownKey));
}

#[test]
fn the_scope_tells_shoppers_apart() {
    let salt = [7; SALT_BYTES];
    let scope = ShopperScope::with(salt, &SHOPPER);
    for (shopper, is_same) in [
        (SHOPPER, true),
        (Shopper { quantity: 9, location_factor: Some(Decimal::ONE), ..SHOPPER }, true),
        (Shopper { location: "NJ", ..SHOPPER }, false),
        (Shopper { prime: false, ..SHOPPER }, false),
        (Shopper { channel: None, ..SHOPPER }, false),
        (Shopper { channel: None, segment: Some("app"), ..SHOPPER }, false),
        (Shopper { location: "NY\u{1}\u{3}app", channel: None, ..SHOPPER }, false),
    ] {
        assert_eq!(scope.is_of(&shopper), is_same, "{shopper:?}");
    }
}

/// The token with a code of the public key in place of its signature.
fn with_hmac(token: &str, signer: &QuoteLock) -> String {
    let header = URL_SAFE_NO_PAD.encode(decoded(token, 0).replace("EdDSA", "HS256"));
    let signed = format!("{header}.{}", token.split('.').nth(1).unwrap());
    let x = serde_json::to_value(signer.public_keys()).unwrap()["keys"][0]["x"].clone();
    let public_key = URL_SAFE_NO_PAD.decode(x.as_str().unwrap()).unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &public_key);
    let tag = ring::hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// The token, which names its own key, with the signature of another one.
fn signed_by(token: &str, pem: &str) -> String {
    let key = base64::engine::general_purpose::STANDARD.decode(pem.lines().nth(1).unwrap()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&key).unwrap();
    let (signed, _) = token.rsplit_once('.').unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes())))
}

#[test]
fn what_is_not_a_valid_lock_is_refused_with_its_reason() {
    let [ours, others] = [new_key_pem().unwrap(), new_key_pem().unwrap()];
    let (signer, other) = (signer(&[&ours]), signer(&[&others]));
    let keys = public(&signer);
    let token = signer.lock(&terms(), now()).unwrap();
    let header = |edit: &dyn Fn(&str) -> String| {
        with_part(&token, 0, &URL_SAFE_NO_PAD.encode(edit(&decoded(&token, 0))))
    };
    let payload = |edit: &dyn Fn(&str) -> String| {
        with_part(&token, 1, &URL_SAFE_NO_PAD.encode(edit(&decoded(&token, 1))))
    };
    let last = |token: &str, replacement: char| {
        let mut token = token.to_owned();
        token.pop();
        token.push(replacement);
        token
    };
    // 64 bytes end with a digit of which two bits are used: A, Q, g or w.
    let not_canonical = last(&token, if token.ends_with('A') { 'B' } else { 'x' });
    let hmac_with_public_key = with_hmac(&token, &signer);
    let other_key_with_our_name = signed_by(&token, &others);
    // Whatever the parser says.
    let unreadable = || LockError::Unreadable("header", String::new());
    let cases = [
        (payload(&|text| text.replace("49.90", "09.90")), LockError::Signature),
        (payload(&|text| text.replace("\"quantity\":3", "\"quantity\":4")), LockError::Signature),
        (other.lock(&terms(), now()).unwrap(), LockError::UnknownKey),
        (other_key_with_our_name, LockError::Signature),
        (with_part(&header(&|text| text.replace("EdDSA", "none")), 2, ""), LockError::Algorithm),
        (header(&|text| text.replace("EdDSA", "eddsa")), LockError::Algorithm),
        (hmac_with_public_key, LockError::Algorithm),
        (header(&|text| text.replace('}', r#","crit":["b64"],"b64":false}"#)), unreadable()),
        (header(&|text| text.replace('}', r#","crit":null}"#)), unreadable()),
        (header(&|text| text.replace('}', r#","jwk":{}}"#)), unreadable()),
        (header(&|text| text.replace("quote-lock+jwt", "JWT")), LockError::Type),
        (header(&|_| r#"{"alg":"EdDSA","typ":"quote-lock+jwt"}"#.to_owned()), LockError::UnknownKey),
        (header(&|text| format!(" {text}")), LockError::Signature),
        (with_part(&token, 2, ""), LockError::Signature),
        (format!("{token}="), LockError::Encoding("signature")),
        (not_canonical, LockError::Encoding("signature")),
        (with_part(&token, 0, "e+"), LockError::Encoding("header")),
        (format!("{token}.x"), LockError::NotCompact),
        (token.replace('.', ""), LockError::NotCompact),
        ("x".repeat(5_000), LockError::TooLong),
    ];
    for (token, reason) in cases {
        let refused = verify(&token, &keys, &Expected::default(), now()).err();
        match (&refused, &reason) {
            (Some(LockError::Unreadable(what, _)), LockError::Unreadable(expected, _)) => {
                assert_eq!(what, expected);
            }
            _ => assert_eq!(refused, Some(reason), "{token}"),
        }
    }
}

#[test]
fn a_lock_is_refused_for_other_terms_and_at_other_times() {
    let signer = signer(&[&new_key_pem().unwrap()]);
    let keys = public(&signer);
    let token = signer.lock(&terms(), now()).unwrap();
    let at = |seconds| now() + chrono::TimeDelta::seconds(seconds);
    let any = Expected::default();
    let other_shopper = Shopper { segment: Some("vip"), ..SHOPPER };
    for (expected, now, reason) in [
        (any, at(899), None),
        (any, at(-60), None),
        (any, at(900), Some(LockError::Expired("2026-10-01T12:15:00Z".parse().unwrap()))),
        (any, at(-62), Some(LockError::NotYetIssued)),
        (Expected { product_id: Some("P-2"), ..any }, at(0), Some(LockError::OtherProduct)),
        (Expected { quantity: Some(1), ..any }, at(0), Some(LockError::OtherQuantity)),
        (Expected { shopper: Some(other_shopper), ..any }, at(0), Some(LockError::OtherShopper)),
    ] {
        assert_eq!(verify(&token, &keys, &expected, now).err(), reason);
    }
}

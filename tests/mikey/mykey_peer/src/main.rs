//! The crate mykey as a peer of the tests: a line of words in, a line of words out; octets in hexadecimal.
//!
//!     psk-offer CSB_ID SSRC PSK        -> OFFER TGK KEYS
//!     psk-answer OFFER PSK             -> ANSWER TGK KEYS
//!     psk-confirm OFFER ANSWER PSK     -> ok
//!     dhhmac-offer CSB_ID SSRC PSK     -> OFFER
//!     dhhmac-confirm ANSWER            -> KEYS, of the last offer
//!     dhhmac-answer OFFER PSK          -> ANSWER KEYS
//!
//! KEYS are master key and salt of crypto session 0. What mykey refuses is answered by "refused" and its reason.

use std::error::Error;
use std::io::{stdin, stdout, BufRead, Write};

use mykey::message::{DhHmacInitiator, DhHmacResponder, MikeyMessage};
use mykey::payload::DhGroup;
use mykey::srtp::{SrtpCryptoSuite, SrtpKeyMaterial};

const SUITE: SrtpCryptoSuite = SrtpCryptoSuite::AES_128_CM_SHA1_80;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn octets(word: &str) -> Outcome<Vec<u8>> {
    let pair = |at| Ok(u8::from_str_radix(word.get(at..at + 2).ok_or("odd digits")?, 16)?);
    (0..word.len()).step_by(2).map(pair).collect()
}

fn word(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn message(word: &str) -> Outcome<MikeyMessage> {
    Ok(MikeyMessage::from_bytes(&octets(word)?)?)
}

fn keys(material: &SrtpKeyMaterial) -> String {
    word(&material.master_key) + &word(&material.master_salt)
}

/// The message, the TGK in `offer`, and the keys from it.
fn transported(message: &MikeyMessage, offer: &MikeyMessage, psk: &[u8]) -> Outcome<String> {
    let tgk = word(&offer.verify_and_extract_tgk(psk)?);
    let material = offer.complete_psk(psk, SUITE)?;
    Ok(format!("{} {tgk} {}", word(message.to_bytes()), keys(&material)))
}

fn answer(words: &[&str], offered: &mut Option<DhHmacInitiator>) -> Outcome<String> {
    match *words {
        ["psk-offer", csb_id, ssrc, psk] => {
            let (csb_id, ssrc, psk) = (csb_id.parse()?, ssrc.parse()?, octets(psk)?);
            let rand: Vec<u8> = (0..16).collect();
            let offer = MikeyMessage::new_psk_init_requiring_verification(csb_id, ssrc, &rand, &psk)?;
            transported(&offer, &offer, &psk)
        }
        ["psk-answer", offer, psk] => {
            let (offer, psk) = (message(offer)?, octets(psk)?);
            transported(&MikeyMessage::new_psk_verification(&offer, &psk)?, &offer, &psk)
        }
        ["psk-confirm", offer, answer, psk] => {
            message(answer)?.verify_psk_verification(&message(offer)?, &octets(psk)?)?;
            Ok("ok".into())
        }
        ["dhhmac-offer", csb_id, ssrc, psk] => {
            let made = DhHmacInitiator::new(csb_id.parse()?, ssrc.parse()?, DhGroup::Oakley5, &octets(psk)?)?;
            let offer = made.init_message()?;
            *offered = Some(made);
            Ok(word(offer.to_bytes()))
        }
        ["dhhmac-confirm", answer] => {
            let made = offered.take().ok_or("nothing was offered")?;
            Ok(keys(&made.complete(&message(answer)?, SUITE)?))
        }
        ["dhhmac-answer", offer, psk] => {
            let offer = message(offer)?;
            let responder = DhHmacResponder::for_offer(&offer, &octets(psk)?)?;
            let answer = word(responder.resp_message(&offer)?.to_bytes());
            Ok(format!("{answer} {}", keys(&responder.complete(&offer, SUITE)?)))
        }
        _ => Err("no such words".into()),
    }
}

fn main() -> Outcome<()> {
    let mut offered = None;
    for line in stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let told = answer(&words, &mut offered).unwrap_or_else(|error| format!("refused {error}"));
        writeln!(stdout(), "{told}")?;
        stdout().flush()?;
    }
    Ok(())
}

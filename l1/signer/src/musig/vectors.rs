//! The vectors published with BIP327 that need neither tweaks nor given secret nonces, and one from seeds to signatures.
//!
//! Keys are in the published order: what [`Attesters::new`] adds to it, KeySort, is not part of these.

use super::*;

const KEYS: [&str; 7] = [
    "02F9308A019258C31049344F85F89D5229B531C845836F99B08601F113BCE036F9",
    "03DFF1D77F2A671C5F36183726DB2341BE58FEAE1DA2DECED843240F7B502BA659",
    "023590A94E768F8E1815C2F24B4D80A8E3149316C3518CE7B7AD338368D038CA66",
    "03935F972DA013F80AE011890FA89B67A27B7BE6CCB24D3274D18B2D4067F261A9",
    "02DFF1D77F2A671C5F36183726DB2341BE58FEAE1DA2DECED843240F7B502BA661",
    "02D2DC6F5DF7C56ACF38C7FA0AE7A759AE30E19B37359DFDE015872324C7EF6E05",
    "03C7FB101D97FF930ACD0C6760852EF64E69083DE0B06AC6335724754BB4B0522C",
];

fn bytes<const N: usize>(digits: &str) -> [u8; N] {
    hex::decode(digits).unwrap().try_into().unwrap()
}

fn in_order(keys: &[usize]) -> Attesters {
    let key = |index: &usize| PublicKey::from_slice(&bytes::<33>(KEYS[*index])).unwrap();
    Attesters::in_order(keys.iter().map(key).collect()).unwrap()
}

fn chunk_of_one(nonces: &[&str]) -> Result<ChunkNonces, MusigError> {
    let lists: Vec<_> = nonces.iter().map(|nonce| vec![bytes(nonce)]).collect();
    ChunkNonces::new(&lists, 1)
}

/// `key_agg_vectors.json`.
#[test]
fn keys_aggregate_as_published() {
    let cases: [(&[usize], &str); 4] = [
        (&[0, 1, 2], "90539EEDE565F5D054F32CC0C220126889ED1E5D193BAF15AEF344FE59D4610C"),
        (&[2, 1, 0], "6204DE8B083426DC6EAF9502D27024D53FC826BF7D2012148A0575435DF54B2B"),
        (&[0, 0, 0], "B436E3BAD62B8CD409969A224731C193D051162D8C5AE8B109306127DA3AA935"),
        (&[0, 0, 1, 1], "69BC22BFA5D106306E48A20679DE1D7389386124D07571D0D872686028C26A3E"),
    ];
    for (keys, expected) in cases {
        assert_eq!(in_order(keys).key().serialize(), bytes(expected), "{keys:?}");
    }
}

/// `nonce_agg_vectors.json`.
#[test]
fn nonces_add_up_as_published_and_bad_ones_are_named() {
    let nonces = [
        "020151C80F435648DF67A22B749CD798CE54E0321D034B92B709B567D60A42E66603BA47FBC1834437B3212E89A84D8425E7BF12E0245D98262268EBDCB385D50641",
        "03FF406FFD8ADB9CD29877E4985014F66A59F6CD01C0E88CAA8E5F3166B1F676A60248C264CDD57D3C24D79990B0F865674EB62A0F9018277A95011B41BFC193B833",
        "020151C80F435648DF67A22B749CD798CE54E0321D034B92B709B567D60A42E6660279BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798",
        "03FF406FFD8ADB9CD29877E4985014F66A59F6CD01C0E88CAA8E5F3166B1F676A60379BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798",
        // A tag of 4; no point with this x; an x beyond the field.
        "04FF406FFD8ADB9CD29877E4985014F66A59F6CD01C0E88CAA8E5F3166B1F676A60248C264CDD57D3C24D79990B0F865674EB62A0F9018277A95011B41BFC193B833",
        "03FF406FFD8ADB9CD29877E4985014F66A59F6CD01C0E88CAA8E5F3166B1F676A60248C264CDD57D3C24D79990B0F865674EB62A0F9018277A95011B41BFC193B831",
        "03FF406FFD8ADB9CD29877E4985014F66A59F6CD01C0E88CAA8E5F3166B1F676A602FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEFFFFFC30",
    ];
    let sums = [
        ([0, 1], "035FE1873B4F2967F52FEA4A06AD5A8ECCBE9D0FD73068012C894E2E87CCB5804B024725377345BDE0E9C33AF3C43C0A29A9249F2F2956FA8CFEB55C8573D0262DC8"),
        ([2, 3], "035FE1873B4F2967F52FEA4A06AD5A8ECCBE9D0FD73068012C894E2E87CCB5804B000000000000000000000000000000000000000000000000000000000000000000"),
    ];
    for ([one, other], expected) in sums {
        let chunk = chunk_of_one(&[nonces[one], nonces[other]]).unwrap();
        assert_eq!(chunk.sums[0].serialize(), bytes(expected));
    }
    for ([one, other], signer) in [([0, 4], 1), ([5, 1], 0), ([6, 1], 0)] {
        let error = chunk_of_one(&[nonces[one], nonces[other]]).unwrap_err();
        assert_eq!(error, MusigError::Nonce { signer, index: 0 });
    }
}

/// `sign_verify_vectors.json`; its keys 0, 1, 2 are 3, 0, 4 here. The last right case's nonces add up to nothing.
#[test]
fn published_partial_signatures_are_told_from_wrong_ones() {
    let nonces = [
        "0337C87821AFD50A8644D820A8F3E02E499C931865C2360FB43D0A0D20DAFE07EA0287BF891D2A6DEAEBADC909352AA9405D1428C15F4B75F04DAE642A95C2548480",
        "0279BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F817980279BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798",
        "032DE2662628C90B03F5E720284EB52FF7D71F4284F627B68A853D78C78E1FFE9303E4C5524E83FFE1493B9077CF1CA6BEB2090C93D930321071AD40B2F44E599046",
        "0237C87821AFD50A8644D820A8F3E02E499C931865C2360FB43D0A0D20DAFE07EA0387BF891D2A6DEAEBADC909352AA9405D1428C15F4B75F04DAE642A95C2548480",
    ];
    let message = [bytes("F95466D086770E689964664219266FE5ED215C92AE20BAB5C9D79ADDDDF3C0CF")];
    let verdict = |keys: &[usize], of: &[usize], signer: usize, partial: &str| {
        let nonces: Vec<_> = of.iter().map(|index| nonces[*index]).collect();
        let chunk = chunk_of_one(&nonces).unwrap();
        in_order(keys).verify_partials(signer, &message, &chunk, &[bytes(partial)])
    };
    let right: [(&[usize], &[usize], usize, &str); 4] = [
        (&[3, 0, 4], &[0, 1, 2], 0, "012ABBCB52B3016AC03AD82395A1A415C48B93DEF78718E62A7A90052FE224FB"),
        (&[0, 3, 4], &[1, 0, 2], 1, "9FF2F7AAA856150CC8819254218D3ADEEB0535269051897724F9DB3789513A52"),
        (&[0, 4, 3], &[1, 2, 0], 2, "FA23C359F6FAC4E7796BB93BC9F0532A95468C539BA20FF86D7C76ED92227900"),
        (&[3, 0], &[0, 3], 0, "AE386064B26105404798F75DE2EB9AF5EDA5387B064B83D049CB7C5E08879531"),
    ];
    for (keys, of, signer, partial) in right {
        assert_eq!(verdict(keys, of, signer, partial), Ok(()), "{keys:?}");
    }
    // The negation of the right one; another signer's; beyond the group's order.
    let wrong = [
        (0, "FED54434AD4CFE953FC527DC6A5E5BE8F6234907B7C187559557CE87A0541C46"),
        (1, "012ABBCB52B3016AC03AD82395A1A415C48B93DEF78718E62A7A90052FE224FB"),
        (0, "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141"),
    ];
    for (signer, partial) in wrong {
        let error = verdict(&[3, 0, 4], &[0, 1, 2], signer, partial).unwrap_err();
        assert_eq!(error, MusigError::Partial { signer, index: 0 });
    }
}

/// `sig_agg_vectors.json`, the cases without tweaks.
#[test]
fn partial_signatures_add_up_to_the_published_signatures() {
    let message = [bytes("599C67EA410D005B9DA90817CF03ED3B1C868E4DA4EDF00A5880B0082C237869")];
    let first = "036E5EE6E28824029FEA3E8A9DDD2C8483F5AF98F7177C3AF3CB6F47CAF8D94AE902DBA67E4A1F3680826172DA15AFB1A8CA85C7C5CC88900905C8DC8C328511B53E";
    let cases = [
        (
            [3, 5],
            "03E4F798DA48A76EEC1C9CC5AB7A880FFBA201A5F064E627EC9CB0031D1D58FC5103E06180315C5A522B7EC7C08B69DCD721C313C940819296D0A7AB8E8795AC1F00",
            [
                "B15D2CD3C3D22B04DAE438CE653F6B4ECF042F42CFDED7C41B64AAF9B4AF53FB",
                "6193D6AC61B354E9105BBDC8937A3454A6D705B6D57322A5A472A02CE99FCB64",
            ],
            "041DA22223CE65C92C9A0D6C2CAC828AAF1EEE56304FEC371DDF91EBB2B9EF0912F1038025857FEDEB3FF696F8B99FA4BB2C5812F6095A2E0004EC99CE18DE1E",
        ),
        (
            [3, 6],
            "02C0068FD25523A31578B8077F24F78F5BD5F2422AFF47C1FADA0F36B3CEB6C7D202098A55D1736AA5FCC21CF0729CCE852575C06C081125144763C2C4C4A05C09B6",
            [
                "9A87D3B79EC67228CB97878B76049B15DBD05B8158D17B5B9114D3C226887505",
                "66F82EA90923689B855D36C6B7E032FB9970301481B99E01CDB4D6AC7C347A15",
            ],
            "1069B67EC3D2F3C7C08291ACCB17A9C9B8F2819A52EB5DF8726E17E7D6B52E9F01800260A7E9DAC450F4BE522DE4CE12BA91AEAF2B4279219EF74BE1D286ADD9",
        ),
    ];
    for (keys, second, partials, expected) in cases {
        let all = in_order(&keys);
        let chunk = chunk_of_one(&[first, second]).unwrap();
        let partials = partials.map(|partial| vec![bytes(partial)]);
        for (signer, partial) in partials.iter().enumerate() {
            assert_eq!(all.verify_partials(signer, &message, &chunk, partial), Ok(()));
        }
        assert_eq!(all.aggregate(&message, &chunk, &partials).unwrap(), [bytes(expected)]);
    }
}

/// Keys, nonces and signatures of another implementation, a script after BIP327's text and BLAKE3's.
#[test]
fn the_same_seeds_give_what_another_implementation_gives() {
    let bytes_of = [5, 6, 7];
    let mut secrets = bytes_of.map(|byte| SecretKey::from_slice(&[byte; 32]).unwrap());
    secrets.sort_by_key(|secret| PublicKey::from_secret_key(secp(), secret).serialize());
    let seeds = bytes_of.map(|byte| move || NonceSeed::split(&Zeroizing::new([byte; 32]), 1).remove(0));
    let all =
        Attesters::new(secrets.iter().map(|secret| PublicKey::from_secret_key(secp(), secret))).unwrap();
    let messages = [[1; 32], [2; 32], [3; 32]];
    let own = || seeds.iter().zip(&secrets);
    let nonces: Vec<_> = own().map(|(seed, secret)| all.nonces(&seed(), secret, &messages)).collect();
    let chunk = ChunkNonces::new(&nonces, messages.len()).unwrap();
    let partials: Vec<_> =
        own().map(|(seed, secret)| all.sign(seed(), secret, &messages, &chunk).unwrap()).collect();
    let signatures = all.aggregate(&messages, &chunk, &partials).unwrap();
    assert_eq!(
        all.key().serialize(),
        bytes("CE68ECC3C67A75B90D8EBD49104043D11A0F718B393404FFBC60917900EBFE1D")
    );
    assert_eq!(nonces[0][2], bytes("0213D6EC2D09B27CB6B4F6DA9D4A300BD2E901690D6C4060C35275B08420DD1FF8021FBBF307E7E0DA4918EC2C36F880CFE98594D3063EDE9DF61F9823D6840B1152"));
    assert_eq!(partials[0][2], bytes("3A427F763CE64FD17E86F407EDEC013D65FC62E5478227F83C1E2AD88312BB9F"));
    assert_eq!(signatures[2], bytes("1029127D14C33A7FB2967B9F5AD8310750A35B64CBAD7BF75D8286FE899B813513098DDA0833A9792D21D32D996B2201ECEB4567B8466FA881F40F4C82C6AC00"));
}

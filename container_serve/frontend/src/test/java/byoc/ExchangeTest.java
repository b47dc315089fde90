package byoc;

import static org.junit.jupiter.api.Assertions.assertEquals;

import org.junit.jupiter.api.Test;

final class ExchangeTest {
    @Test
    void callersTextIsPrintable() {
        assertEquals("a?b", Exchange.printable("a\nb", 9));
    }
}

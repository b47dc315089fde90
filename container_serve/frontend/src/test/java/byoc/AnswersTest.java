package byoc;

import static org.junit.jupiter.api.Assertions.assertEquals;

import org.junit.jupiter.api.Test;

final class AnswersTest {
    private static String sent(int workers, int maxRequestBytes) {
        var parameters = Answers.executionParameters(workers, maxRequestBytes);
        assertEquals("SINGLE_RECORD", parameters.get("BatchStrategy").getAsString());
        return parameters.get("MaxConcurrentTransforms").getAsInt() + " x " + parameters.get("MaxPayloadInMB").getAsInt();
    }

    @Test
    void batchTransformIsToldNoValuesBeyondItsLimits() {
        assertEquals("2 x 6", sent(2, 6_291_456));
        assertEquals("1 x 100", sent(2, 1_073_741_824)); // as async inference needs it
        assertEquals("4 x 1", sent(4, 1_000_000)); // 0 would be "no limit"
        assertEquals("16 x 6", sent(20, 6_291_456));
        assertEquals("1 x 100", sent(512, 2_000_000_000));
    }
}

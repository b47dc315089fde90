package byoc;

import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

final class OutcomesTest {
    @Test
    void aTimeoutWithoutAnyGoodAnswerIsAFailureUntilOneIsGood() {
        Outcomes.count(504);
        assertTrue(Outcomes.failing());
        Outcomes.count(400); // says nothing about the model
        assertTrue(Outcomes.failing());
        Outcomes.count(200);
        assertFalse(Outcomes.failing());
        Outcomes.count(500); // one alone does not last
        assertFalse(Outcomes.failing());
    }
}
